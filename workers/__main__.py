"""`python -m workers` is what `pigeonhole worker` starts."""

import os
import sys

from orchestrator.contract.imports import uncollected_imports
from orchestrator.contract.run_folder import own_run_folder
from orchestrator.contract.streams import prepare_process

if __name__ == "__main__":
    prepare_process()
    own_run_folder()
    from workers.early_child import EarlyChild, environment_of_child

    early = None if "--help" in sys.argv else EarlyChild(environment_of_child(os.environ))
    try:
        with uncollected_imports():
            from workers.process import main  # Celery is imported once the process's encoding is right

        if early is not None:
            early.install()
        main()
    finally:
        if early is not None:
            early.end()
