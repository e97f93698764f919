"""What commands do before they import torch or matplotlib."""

import os
from pathlib import Path

import pytest

from orchestrator.contract.home import set_library_folders
from orchestrator.contract.settings import Settings
from tests.support.invoke import invoke
from tests.support.published_models import publish_model


def test_libraries_keep_their_files_in_the_cache_unless_the_user_says_otherwise(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", {"MPLCONFIGDIR": "mine"})

    set_library_folders(Settings(home=tmp_path))

    assert os.environ == {"MPLCONFIGDIR": "mine", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache" / "torch")}


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "FILE", "--model", "digits"),
        ("read", "FILE", "--model", "digits"),
        ("models", "bench", "digits"),
        ("models", "compare", "digits", "digits", "FILE"),
        ("models", "explain", "digits", "-o", "NEW"),
        ("models", "export", "digits", "-o", "NEW.onnx"),
        ("models", "summary", "lenet"),
        ("weights", "import", "FILE"),
    ],
    ids=" ".join,
)
def test_where_the_present_folder_was_deleted_nothing_is_imported(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path))
    publish_model(tmp_path / "models", "digits")
    (tmp_path / "FILE").touch()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    result = invoke(*(str(tmp_path / each) if each.isupper() or "NEW" in each else each for each in command))

    assert result.exit_code == 2
    assert result.stderr.endswith("the present folder was deleted; change to one that exists\n")
