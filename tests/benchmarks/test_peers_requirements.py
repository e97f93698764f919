"""The requirements of the peers, compared with our lock."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def pins(path: str) -> dict[str, set[str]]:
    """Versions by name; more than one where they depend on the Python."""
    found: dict[str, set[str]] = {}
    for name, version in PINNED.findall((ROOT / path).read_text()):
        found.setdefault(name, set()).add(version)
    return found


def test_peers_are_pinned_and_share_our_torch():
    peers, ours = pins("benchmarks/peers/requirements.txt"), pins("requirements.lock")

    assert {"ray", "timm", "transformers"} <= set(peers)
    assert {name: peers[name] for name in ("torch", "torchvision", "pillow", "numpy")} == {
        name: ours[name] for name in ("torch", "torchvision", "pillow", "numpy")
    }


def test_peers_of_lines_are_pinned_and_share_our_engine_and_decoder():
    peers, ours = pins("benchmarks/peers/lines/requirements.txt"), pins("requirements.lock")

    assert {"celery", "litserve", "mosec"} <= set(peers)
    shared = ("celery", "hiredis", "numpy", "openvino", "pillow", "redis", "simplejpeg", "torch")
    assert {name: peers[name] for name in shared} == {name: ours[name] for name in shared}


@pytest.mark.parametrize("folder", ["benchmarks/peers", "benchmarks/peers/lines", "tests/tritonclient"])
def test_requirements_name_no_index_host(folder):
    text = (ROOT / folder / "requirements.txt").read_text()

    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
