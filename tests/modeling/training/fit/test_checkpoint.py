"""Checkpoints: which one a run resumes from, and what a process that was overtaken can no longer do."""

import os
from dataclasses import fields

import pytest
import torch

from modeling.networks.recipes import Recipe
from modeling.training.attempt import SupersededError, has_progressed
from modeling.training.fit.checkpoint import Checkpoints
from modeling.training.fit.plan import Plan


@pytest.fixture
def attempts(tmp_path):
    """The file of an attempt, by its number; made when it is asked for."""
    folder = tmp_path / "attempts"
    folder.mkdir()

    def begin(number):
        path = folder / f"{number}.json"
        path.touch()
        return path

    return begin


def names(folder):
    return sorted(path.name for path in folder.glob("scratch*"))


def test_a_checkpoint_of_another_run_is_not_used_and_says_so(tmp_path):
    notes = []
    Checkpoints(tmp_path, "scratch", run="one").save(3, {"epoch": 3})

    assert Checkpoints(tmp_path, "scratch", run="one").load(notes.append)["epoch"] == 3
    assert Checkpoints(tmp_path, "fine-tune", run="one").load(notes.append) is None
    assert notes == []
    assert Checkpoints(tmp_path, "scratch", run="two").load(notes.append) is None
    assert notes == [f"{tmp_path / 'scratch.0.3.checkpoint'} belongs to another training: its images, options or "
                     "weights differ; not used"]  # fmt: skip


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


def zeroed(path):
    """As a file whose blocks did not reach the disk."""
    path.write_bytes(bytes(path.stat().st_size))


def one_bit(path):
    data = bytearray(path.read_bytes())
    data[data.index(torch.full((300,), 7.0).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut_off, empty, zeroed, one_bit])
def test_a_damaged_checkpoint_is_never_loaded_and_the_one_before_is(tmp_path, damage):
    checkpoints, notes = Checkpoints(tmp_path, "scratch", run="one"), []
    for step in (3, 4, 5):
        checkpoints.save(step, {"step": step, "weights": torch.full((300,), 7.0)})
    assert names(tmp_path) == ["scratch.0.4.checkpoint", "scratch.0.5.checkpoint"]

    damage(tmp_path / "scratch.0.5.checkpoint")

    assert checkpoints.load(notes.append)["step"] == 4
    assert len(notes) == 1
    assert "scratch.0.5.checkpoint: the checkpoint is damaged" in notes[0]
    assert names(tmp_path) == ["scratch.0.4.checkpoint", "scratch.0.5.checkpoint.damaged"]


def test_a_checkpoint_of_another_version_is_kept_and_not_used(tmp_path, monkeypatch):
    checkpoints, notes = Checkpoints(tmp_path, "scratch", run="one"), []
    monkeypatch.setattr("modeling.training.fit.checkpoint.CHECKPOINT_VERSION", 99)
    checkpoints.save(5, {})
    monkeypatch.undo()

    assert checkpoints.load(notes.append) is None
    assert "has version 99, this Pigeonhole reads version 2; it is kept as" in notes[0]
    assert names(tmp_path) == ["scratch.0.5.checkpoint.other-version"]


def test_storage_that_is_away_is_no_damage(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "scratch", run="one")
    checkpoints.save(5, {})

    def away(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("modeling.training.fit.checkpoint._digest_of", away)
    with pytest.raises(OSError, match="Input/output error"):
        checkpoints.load()
    assert names(tmp_path) == ["scratch.0.5.checkpoint"]


def test_a_process_that_was_overtaken_writes_no_checkpoint_and_changes_none(tmp_path, attempts):
    old = Checkpoints(tmp_path, "scratch", run="one", attempt=attempts(1))
    old.save(100, {"by": "old"})
    new = Checkpoints(tmp_path, "scratch", run="one", attempt=attempts(2))
    new.save(50, {"by": "new"})

    with pytest.raises(SupersededError, match="attempt 2 has begun"):
        old.save(200, {"by": "old"})

    assert new.load() == {"run": "one", "by": "new"}
    assert names(tmp_path) == ["scratch.1.100.checkpoint", "scratch.2.50.checkpoint"]


def test_a_process_that_is_overtaken_while_it_writes_leaves_nothing(tmp_path, attempts, monkeypatch):
    old = Checkpoints(tmp_path, "scratch", run="one", attempt=attempts(1))
    write = torch.save

    def frozen_meanwhile(state, file):
        write(state, file)
        attempts(2)

    monkeypatch.setattr(torch, "save", frozen_meanwhile)
    with pytest.raises(SupersededError):
        old.save(100, {})

    assert [path.name for path in tmp_path.iterdir()] == ["attempts"]


def test_the_last_attempt_counts_before_a_later_step_of_an_earlier_one(tmp_path, attempts):
    old = Checkpoints(tmp_path, "scratch", run="one", attempt=attempts(9))
    old.save(100, {"by": "old"})
    new = Checkpoints(tmp_path, "scratch", run="one", attempt=attempts(10))

    assert new.load()["by"] == "old"
    new.save(20, {"by": "new"})
    assert new.load()["by"] == "new"
    new.save(30, {"by": "newer"})
    assert names(tmp_path) == ["scratch.10.20.checkpoint", "scratch.10.30.checkpoint"]


def test_what_a_killed_process_left_half_written_is_removed_but_not_what_a_later_one_writes(tmp_path, attempts):
    (tmp_path / ".scratch.1.7.checkpoint.0a1b2c3d.tmp").write_text("half")
    (tmp_path / ".scratch.3.7.checkpoint.0a1b2c3d.tmp").write_text("half")

    Checkpoints(tmp_path, "scratch", run="one", attempt=attempts(2)).save(8, {})

    assert [path.name for path in tmp_path.glob(".*")] == [".scratch.3.7.checkpoint.0a1b2c3d.tmp"]


def test_a_checkpoint_of_the_very_beginning_is_no_progress(tmp_path, attempts):
    checkpoints = Checkpoints(tmp_path, "scratch", run="one", attempt=attempts(2))

    checkpoints.save(0, {})
    assert not has_progressed(tmp_path, 2)
    checkpoints.save(1, {})
    assert has_progressed(tmp_path, 2)
    assert not has_progressed(tmp_path, 1)
    assert not has_progressed(tmp_path / "nowhere", 1)


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, "scratch", run="one")
    checkpoints.save(1, {})
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, {})

    assert [path.name for path in tmp_path.iterdir()] == ["scratch.0.1.checkpoint"]


def test_a_change_of_what_checkpoints_hold_needs_another_version():
    """If this fails: increase CHECKPOINT_VERSION, and write the fields as they are now."""
    plan, recipe = ([field.name for field in fields(kind)] for kind in (Plan, Recipe))

    assert plan == ["recipe", "micro_batch", "precision", "channels_last", "class_weights", "freeze_statistics"]
    assert recipe == [
        "epochs",
        "batch_size",
        "learning_rate",
        "weight_decay",
        "augmentation",
        "optimizer",
        "momentum",
        "warmup",
        "decay",
        "label_smoothing",
        "floor",
        "average",
        "lookahead",
        "clip",
        "mixing",
    ]
