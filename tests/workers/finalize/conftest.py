from pathlib import Path

import pytest


@pytest.fixture
def outbox(tmp_path: Path) -> Path:
    """The folder that the output goes to."""
    folder = tmp_path / "outbox"
    folder.mkdir()
    return folder
