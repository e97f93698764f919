import logging

import pytest

from workers.log_limit import LogLimit


def test_a_flood_of_lines_is_cut_and_counted(caplog: pytest.LogCaptureFixture):
    now = 100.0
    log = LogLimit(logging.getLogger("flood"), num_lines=2, period_s=60, clock=lambda: now)

    for number in range(1000):
        log.warning("bad message %d", number)
    now += 61
    log.error("bad message %d", 1000)

    assert [record.getMessage() for record in caplog.records] == [
        "bad message 0",
        "bad message 1",
        "further lines like this one are left out for 60 s",
        "998 lines like the following were left out",
        "bad message 1000",
    ]
