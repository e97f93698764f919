"""What a worker's parent does for a line where the disk is full."""

import errno
import os
from types import SimpleNamespace

import pytest

from orchestrator.contract.lines.mover import AnswerMover
from tests.support.line_worker import make_line
from workers.lines.image_bounds import ImageBounds
from workers.lines.maintenance import LineMaintenance


class Store:
    """A line without answers; this worker is its keeper."""

    name = "post"
    client = SimpleNamespace(set=lambda *_, **__: True, time=lambda: (1_000_000, 0))

    def key(self, name):
        return name

    def run(self, script, args):
        return None


def refusing(code):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    return refuse


def test_a_full_disk_keeps_nothing_from_being_deleted(tmp_path, monkeypatch):
    steps = []

    for owner, name in ((AnswerMover, "move"), (AnswerMover, "merge")):
        monkeypatch.setattr(owner, name, refusing(errno.ENOSPC))
    monkeypatch.setattr(AnswerMover, "expire", lambda *_: steps.append("answers"))
    monkeypatch.setattr(ImageBounds, "enforce", lambda *_: steps.append("images"))
    monkeypatch.setattr(Store, "run", lambda self, script, args: steps.append(script))
    maintenance = LineMaintenance(Store(), tmp_path, "w1")

    with pytest.raises(OSError, match="No space left"):
        maintenance.run(make_line().settings)

    assert steps == ["answers", "images", "unkept"]


def test_a_disk_that_refuses_to_delete_keeps_no_answers_on_the_server(tmp_path, monkeypatch):
    steps = []

    for owner, name in ((AnswerMover, "expire"), (ImageBounds, "enforce")):
        monkeypatch.setattr(owner, name, refusing(errno.EIO))
    monkeypatch.setattr(AnswerMover, "move", lambda *_: steps.append("move"))
    monkeypatch.setattr(AnswerMover, "merge", lambda *_: steps.append("merge"))
    maintenance = LineMaintenance(Store(), tmp_path, "w1")

    with pytest.raises(OSError, match="Input/output error"):
        maintenance.run(make_line().settings)

    assert steps == ["move", "merge"]
