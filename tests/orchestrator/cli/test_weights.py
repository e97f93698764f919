"""`pigeonhole weights list`, `import` and `remove`, and the line of a training."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network
from orchestrator.contract.settings import get_settings
from tests.support.invoke import invoke
from tests.support.pretrained import store_weights
from tests.support.published_models import publish_network


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home to come; the present folder holds weights of a lenet."""
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    torch.save(build_network("lenet", Preprocessing("RGB", 32, 32), 3).state_dict(), tmp_path / "lenet.pth")
    return tmp_path / "home"


def test_weights_are_imported_listed_and_removed(home):
    imported = invoke("weights", "import", "lenet.pth", "--name", "ours", "--json")
    facts = json.loads(imported.stdout)
    again = invoke("weights", "import", "lenet.pth", "--name", "ours")
    listed = json.loads(invoke("weights", "list", "--json").stdout)
    shown = invoke("weights", "list").stdout

    assert (imported.exit_code, facts["architecture"], facts["num_classes"]) == (0, "lenet", 3)
    assert (again.exit_code, again.stdout) == (0, "ours\n")
    assert again.stderr.startswith("already imported: lenet, 3 classes, digest ")
    assert "they are not taken unasked" in again.stderr
    assert [weights["sha256"] for weights in listed] == [facts["sha256"]]
    assert "from lenet.pth" in shown
    assert facts["sha256"][:12] in shown

    removed = invoke("weights", "remove", "ours", "--yes", "--json")

    assert json.loads(removed.stdout) == {"removed": "ours"}
    assert invoke("weights", "list").stderr.startswith("no pre-trained weights are at hand; copy a file such as ")
    assert json.loads(invoke("weights", "list", "--json").stdout) == []


def test_libraries_report_nothing_as_the_command_ends(home):
    torch.save(build_network("mobilenet_v2", Preprocessing("RGB", 32, 32), 1000).state_dict(), "mobilenet.pth")
    command = [sys.executable, "-m", "orchestrator", "weights", "import", "mobilenet.pth"]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert done.stderr.splitlines()[-1].startswith("`pigeonhole train` takes them where they suit the images")


def test_the_name_is_that_of_the_architecture_unless_it_is_given(home):
    assert invoke("weights", "import", "lenet.pth").stdout == "lenet\n"


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return (os.mkdir, ("was-run",))


def test_what_is_no_file_of_weights_is_told_and_nothing_is_left(home, tmp_path):
    Path("empty.pth").touch()
    Path("text.pth").write_text("hello")
    Path("pickle.pth").write_bytes(pickle.dumps(Code()))
    Path("folder").mkdir()
    Path("model").mkdir()
    Path("model/model.json").touch()
    torch.save({"a.weight": torch.zeros(2)}, "unknown.pth")
    os.mkfifo("pipe.pth")
    for file, code, told in (
        ("nowhere.pth", 4, "there is no 'nowhere.pth'; give a file of weights"),
        ("empty.pth", 1, "empty.pth"),
        ("text.pth", 1, "text.pth"),
        ("pickle.pth", 1, "nothing else is unpickled"),
        ("folder", 1, "folder has no model.json and no file of weights"),
        ("model", 2, "'model' is a model; `pigeonhole models import` takes it"),
        ("unknown.pth", 2, "those of no architecture that is known here"),
        ("pipe.pth", 1, "pipe.pth is a pipe, not a regular file"),
    ):
        result = invoke("weights", "import", file)
        assert (result.exit_code, result.stdout) == (code, ""), file
        assert told in result.stderr
        assert result.stderr.count("\n") == 1, file

    assert not Path("was-run").exists()
    assert not (home / "weights").exists()


def test_a_taken_or_impossible_name_and_another_architecture_are_mistakes(home):
    invoke("weights", "import", "lenet.pth", "--name", "ours")
    torch.save(build_network("lenet", Preprocessing("RGB", 32, 32), 3).state_dict(), "other.pth")

    taken = invoke("weights", "import", "other.pth", "--name", "ours")
    reserved = invoke("weights", "import", "other.pth", "--name", "imagenet")
    wrong = invoke("weights", "import", "other.pth", "--arch", "speednet")
    missing = invoke("weights", "remove", "nobody", "--yes")

    assert (taken.exit_code, reserved.exit_code, wrong.exit_code, missing.exit_code) == (1, 2, 2, 4)
    assert "the name 'ours' is taken, by other weights of lenet (from lenet.pth)" in taken.stderr
    assert "stands for torchvision's weights" in reserved.stderr
    assert "they are weights of lenet" in wrong.stderr
    assert "no imported weights 'nobody'; there are: ours" in missing.stderr


def test_the_weights_of_a_published_model_are_not_imported(home):
    version = publish_network(home / "models", "digits")
    Path("folder").mkdir()
    file = version.path / "model.safetensors"
    copied = shutil.copy(file, "folder")
    torch.save({"model": safetensors.torch.load_file(file)}, "saved_again.pth")

    results = [invoke("weights", "import", each) for each in (file, copied, "folder", "saved_again.pth")]

    assert {result.exit_code for result in results} == {2}
    assert all("holds the weights of digits@1, which has seen images" in result.stderr for result in results)
    assert json.loads(invoke("weights", "list", "--json").stdout) == []


def test_a_file_that_was_not_imported_is_listed_and_not_removed(home, monkeypatch):
    Path("given").mkdir()
    Path("lenet.pth").rename("given/ours.pth")
    Path("given/bad.pth").touch()
    monkeypatch.setenv("PIGEONHOLE_WEIGHTS", "given")
    get_settings.cache_clear()

    listed = {weights["name"]: weights for weights in json.loads(invoke("weights", "list", "--json").stdout)}
    removed = invoke("weights", "remove", "ours", "--yes")

    assert (listed["ours"]["origin"], listed["ours"]["architecture"]) == ("folder", "lenet")
    assert "error" in listed["bad"]
    assert "unusable: " in invoke("weights", "list").stdout
    assert removed.exit_code == 2
    assert "were not imported; delete the file" in removed.stderr


def test_imported_weights_are_removed_although_the_weights_folder_is_away(home, monkeypatch):
    store_weights(home / "weights", "ours")
    monkeypatch.setenv("PIGEONHOLE_WEIGHTS", "away")

    assert invoke("weights", "remove", "ours", "--yes").exit_code == 0


def test_nothing_is_removed_without_a_yes(home):
    store_weights(home / "weights", "ours")

    result = invoke("weights", "remove", "ours")

    assert result.exit_code == 2
    assert "remove with --yes" in result.stderr
