"""What is installed: the wheel's files and facts, the locks, and the README that `make test-readme` types."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests.readme import WAYS, steps_of, typed

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_PIN = re.compile(r"^([a-z0-9-]+)==(\S+)(.*?) \\$", re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built by the back end of the development lock."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def pins(name: str) -> dict[tuple[str, str], str]:
    """Package and version -> marker, of a lock."""
    return {(package, version): marker for package, version, marker in _PIN.findall((ROOT / name).read_text())}


def test_the_wheel_carries_every_file_of_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packages = ("modeling", "orchestrator", "pigeonhole", "workers")
    tracked = subprocess.run(["git", "ls-files", *packages], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}

    assert {name for name in tracked.stdout.split() if (ROOT / name).exists()} <= files
    assert {name.partition("/")[0] for name in files} == set(packages)
    assert {Path(name).suffix for name in files} <= {".py", ".lua", ".html", ".css", ".svg"}


def test_the_wheel_says_what_it_needs_and_names_no_host(wheel: zipfile.ZipFile) -> None:
    [name] = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    facts = HeaderParser().parsestr(wheel.read(name).decode())

    assert facts["License-Expression"] == "Apache-2.0"
    assert facts["Requires-Python"] == ">=3.11"
    assert len([line for line in facts.get_all("Requires-Dist") or [] if "extra ==" not in line]) == len(
        PROJECT["dependencies"]
    )
    assert not re.search(r"https?://", "\n".join(f"{key}: {value}" for key, value in facts.items()))


def test_the_lock_without_a_gpu_is_the_other_lock_but_for_what_a_gpu_alone_needs() -> None:
    [line] = re.findall(r"^GPU_ONLY := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    everything = pins("requirements.lock")

    assert pins("requirements-cpu.lock") == {
        key: marker for key, marker in everything.items() if key[0] not in line.split()
    }
    assert {name for name, _ in everything} >= set(line.split())


@pytest.mark.parametrize("way", WAYS)
def test_each_way_through_the_readme_begins_with_an_installation_and_ends_with_python(way: str) -> None:
    steps = typed(steps_of((ROOT / "README.md").read_text()), way, "pigeonhole.whl")

    assert steps[0].text.startswith("make demo" if way == "clone" else "python3 -m venv")
    assert [step.text.split()[2] for step in steps if step.text.startswith("pip install")] == {
        "clone": [], "pip": ["."], "wheel": ["pigeonhole.whl"],
    }[way]  # fmt: skip
    assert steps[-1].is_python
    assert len([step for step in steps if step.text.startswith("pigeonhole ")]) > 10
