import time

import pytest

from modeling.images.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """The time that `time.monotonic` gives, to be set."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_progress_is_reported_every_half_second_and_at_the_end(clock):
    reported = []
    progress = Progress(lambda num_done, total: reported.append((num_done, total)))

    for num_done in range(1, 11):
        clock[0] += 0.2
        progress.update(num_done, 10)

    assert reported == [(3, 10), (6, 10), (9, 10), (10, 10)]


def test_the_first_report_may_come_at_once(clock):
    reported = []
    progress = Progress(lambda num_done, total: reported.append((num_done, total)), report_first=True)

    progress.update(1, None)
    progress.update(2, None)

    assert reported == [(1, None)]
