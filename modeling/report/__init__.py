"""One self-contained page a model version, made to be looked at, and its plots."""
