"""What a job publishes can be sorted: manifest, summary and sidecar fit together."""

import os
from pathlib import Path

import pytest

from orchestrator.contract.settings import Settings
from orchestrator.sorting.sort import Sorted
from tests.support.fakes import FAKE_TIME_NS, FakeFinalizeLease, make_job, write_fake_parts
from tests.support.sorting import Tree
from workers.finalize.publish import publish_manifest

NAMES = [*(f"{number}.jpg" for number in range(9)), "line\nend.jpg", os.fsdecode(b"caf\xe9.jpg"), "x/=1.jpg"]


@pytest.mark.parametrize("row_format", ["csv", "json", "jsonl"])
@pytest.mark.parametrize("mode", ["link", "move"])
def test_a_published_manifest_is_sorted(settings: Settings, tmp_path: Path, row_format: str, mode: str):
    tree = Tree(settings, tmp_path / "in", tmp_path / f"out.{row_format}", tmp_path / "sorted")
    folder = make_job(settings, NAMES, root=tree.root, output=tree.manifest, output_format=row_format)
    for name in NAMES:
        file = tree.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(100 + len(name)))
        os.utime(file, ns=(0, FAKE_TIME_NS + len(name)))
    write_fake_parts(folder, calibrated=True)
    publish_manifest(folder, folder.request(), None, FakeFinalizeLease())

    result: Sorted = tree.sort(mode, "label,decision")

    assert result.tally.left == {}
    assert result.tally.num_sorted == len(NAMES)
    assert sum(num for name, num in result.tally.folders.items() if name.startswith("_errors/")) == 3
    assert tree.unsort().num_undone == len(NAMES)
