"""What a command does before it imports torch or matplotlib."""

import os

from modeling.images.quotas import limit_threads
from orchestrator.contract.access import present_folder_exists
from orchestrator.contract.errors import UsageError


def prepare_for_libraries() -> None:
    """Let them keep their files in the cache, and start as many threads as the quota allows.

    Raises UsageError where the present folder was deleted: torch's libraries would end this process.
    """
    from orchestrator.contract.home import set_library_folders
    from orchestrator.contract.settings import get_settings

    if not present_folder_exists():
        raise UsageError("the present folder was deleted; change to one that exists")
    set_library_folders(get_settings())
    os.environ.update(limit_threads(os.environ))
