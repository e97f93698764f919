"""Pool children that die soon after their start are replaced slowly; what the list of workers says of them."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest

from orchestrator.contract.health import CHILD_STALE_S, ChildState, read_child, read_parent, write_state
from workers.vital_signs import (
    FREE_DEATHS,
    PAUSES_S,
    QUICK_S,
    ChildSigns,
    ParentSigns,
    count_quick_deaths,
    describe_child,
    pause_after,
)

DIED_AT_ONCE = ChildState(7, 100.0, 112.0, ready_s=110.0, quick_deaths=2)


@pytest.mark.parametrize(
    ("before", "num"),
    [
        (None, 0),
        (DIED_AT_ONCE, 3),
        (replace(DIED_AT_ONCE, ready_s=None), 3),  # it died while it imported torch
        (replace(DIED_AT_ONCE, at_s=111 + QUICK_S), 0),
        (replace(DIED_AT_ONCE, leaving="it uses too much memory"), 3),  # at once after its start: the limit is too low
        (replace(DIED_AT_ONCE, at_s=111 + QUICK_S, leaving="it uses too much memory"), 0),
    ],
)
def test_only_deaths_soon_after_a_start_count_and_only_in_a_row(before, num):
    assert count_quick_deaths(before) == num


def test_the_first_deaths_cost_no_wait_and_later_ones_ever_more():
    pauses = [pause_after(num) for num in range(FREE_DEATHS + len(PAUSES_S) + 3)]

    assert pauses == [0.0] * (FREE_DEATHS + 1) + [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1]]


def test_a_child_counts_the_deaths_of_those_before_it_and_says_when_it_is_ready(tmp_path):
    first = ChildSigns(tmp_path)
    first.heartbeat()
    second = ChildSigns(tmp_path)
    second.heartbeat()
    second.ready()

    state = read_child(tmp_path)

    assert state is not None
    assert (state.pid, state.quick_deaths, state.ready_s is not None) == (os.getpid(), 1, True)


@pytest.mark.parametrize(("deaths_before", "pauses"), [(FREE_DEATHS - 1, []), (FREE_DEATHS, [PAUSES_S[0]])])
def test_a_child_waits_before_it_does_anything_once_many_before_it_died_at_once(
    deaths_before, pauses, tmp_path, monkeypatch
):
    write_state(tmp_path, replace(DIED_AT_ONCE, quick_deaths=deaths_before))
    waited = []
    monkeypatch.setattr("workers.vital_signs.time.sleep", waited.append)

    ChildSigns(tmp_path).start()

    assert waited == pauses


def test_the_list_says_that_a_child_hangs():
    child = ChildState(7, 100.0, 500.0, ready_s=110.0)

    assert describe_child(child, 500.0 + CHILD_STALE_S) == ""
    assert describe_child(child, 570.0) == "its pool child 7 has shown no sign of life for 70 s"


def test_the_list_says_why_a_child_was_replaced_for_a_while():
    child = ChildState(7, 100.0, 100.0, ready_s=110.0, before="it uses 9 GB")

    assert describe_child(child, 115.0) == "its pool child was replaced: it uses 9 GB"
    assert describe_child(replace(child, at_s=999.0), 999.0) == ""
    assert describe_child(replace(child, leaving="it uses 8 GB"), 115.0) == "its pool child is replaced: it uses 8 GB"
    assert describe_child(replace(child, before="", quick_deaths=4), 115.0).startswith(
        "4 pool children in a row died soon"
    )
    assert describe_child(None, 115.0) == ""


def test_a_parent_listens_while_it_is_at_work_or_asks_for_doorbells(tmp_path):
    channel = SimpleNamespace(_brpop_sent_at=42.0)
    busy = [False]
    signs = ParentSigns(tmp_path, "w1", lambda: False)
    signs.heartbeat()
    states = [read_parent(tmp_path)]

    signs.listen_to(SimpleNamespace(task_consumer=SimpleNamespace(channel=channel)), lambda: busy[0])
    signs.heartbeat()
    states.append(read_parent(tmp_path))
    channel._brpop_sent_at = None  # it reconnects
    signs.heartbeat()
    states.append(read_parent(tmp_path))
    busy[0] = True
    signs.heartbeat()
    states.append(read_parent(tmp_path))

    assert [state.listening_s for state in states[:3]] == [None, 42.0, 42.0]
    assert states[3].listening_s == states[3].at_s
