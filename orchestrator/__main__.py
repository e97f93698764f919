"""`python -m orchestrator` is the same as `pigeonhole`."""

from orchestrator.cli import main

if __name__ == "__main__":
    main(prog_name="pigeonhole")
