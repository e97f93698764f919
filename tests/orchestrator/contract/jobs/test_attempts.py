"""The attempts at a training, on the disk: who began them, how they ended, and which deaths count."""

from datetime import UTC, datetime

import pytest

from modeling.training.attempt import SupersededError, check_last
from orchestrator.contract.jobs.attempts import (
    WORKER_DIED,
    Attempt,
    AttemptBegin,
    AttemptEnd,
    begin_attempt,
    close_attempts,
    count_deaths,
    end_attempt,
    read_attempts,
)
from tests.support.fakes import make_job

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


@pytest.fixture
def folder(settings, tmp_path):
    return make_job(settings, ["a.jpg"], root=tmp_path, output=tmp_path / "out.csv")


def begin(folder, worker="w1"):
    return begin_attempt(folder, worker=worker, device="cpu")


def save_checkpoint(folder, number, step):
    folder.training.mkdir(exist_ok=True)
    (folder.training / f"scratch.{number}.{step}.checkpoint").touch()


def test_attempts_are_numbered_and_a_later_one_ends_an_earlier_one(folder):
    first = begin(folder)
    check_last(first)

    second = begin(folder, "w2")

    check_last(second)
    with pytest.raises(SupersededError, match="attempt 2 has begun"):
        check_last(first)
    assert [(each.number, each.begin.worker, each.end) for each in read_attempts(folder)] == [
        (1, "w1", None), (2, "w2", None),
    ]  # fmt: skip


def test_an_attempt_whose_worker_died_is_ended_by_the_next_worker_and_the_first_record_stays(folder):
    begin(folder)
    save_checkpoint(folder, 1, 0)
    begin(folder)
    save_checkpoint(folder, 2, 7)
    end_attempt(folder, 1, "the worker stopped")

    assert close_attempts(folder) == [f"attempt 2, on worker w1: {WORKER_DIED}"]
    end_attempt(folder, 2, "the frozen worker has another view")

    ends = [each.end for each in read_attempts(folder)]
    assert [(end.how, end.died, end.progressed) for end in ends] == [
        ("the worker stopped", False, False), (WORKER_DIED, True, True),
    ]  # fmt: skip
    assert close_attempts(folder) == []


def attempts(*ends, run=0):
    """Attempts that ended in these ways: d died, D died after a new checkpoint, b and B were handed back."""
    begun = AttemptBegin(run=run, worker="w1", device="cpu", at=NOW)
    return [
        Attempt(number, begun, AttemptEnd(how="", at=NOW, died=end in "dD", progressed=end.isupper()))
        for number, end in enumerate(ends, start=1)
    ]


@pytest.mark.parametrize(
    ("ends", "deaths"),
    [("", 0), ("b", 0), ("d", 1), ("D", 1), ("ddd", 3), ("dDd", 2), ("DDDDDDD", 1), ("dbd", 2), ("dBd", 1), ("ddB", 0)],
)
def test_deaths_count_as_long_as_no_new_checkpoint_comes(ends, deaths):
    assert count_deaths(attempts(*ends), 0) == deaths


def test_a_resume_counts_from_zero():
    earlier, later = attempts("d", "d"), attempts("b", "b", "d", run=1)[2:]

    assert count_deaths([*earlier, *later], 1) == 1
    assert count_deaths(earlier, 1) == 0


def test_what_cannot_be_read_is_left_out(folder):
    begin(folder)
    (folder.attempts / "1.json").write_text("{")

    assert read_attempts(folder) == []
    assert begin(folder).name == "2.json"
