"""What others use for the same work, each a script of ours that runs in `.venv-peers`, by its own documentation."""
