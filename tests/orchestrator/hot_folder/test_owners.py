"""Whose claims are whose: processes that die, freeze, and wake up."""

import pytest

from orchestrator.hot_folder import owners
from orchestrator.hot_folder.owners import LEASE_S, Owner


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_an_owner_that_died_on_this_machine_is_adopted_at_once_and_by_one(tmp_path, clock):
    dead, first, second = (Owner(tmp_path, clock) for _ in range(3))
    dead.leave(claims_left=True)  # its lock goes, as when it is killed

    assert first.adopt() == {dead.name}
    assert second.adopt() == set()
    assert first.adopt() == {dead.name}
    first.forget(dead.name)
    assert first.adopt() == set()


def test_an_owner_on_another_machine_is_dead_when_its_count_stands_still(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(owners, "_boot_id", lambda: "there")
    there = Owner(tmp_path, clock)
    there.leave(claims_left=True)
    monkeypatch.setattr(owners, "_boot_id", lambda: "here")
    here = Owner(tmp_path, clock)

    assert here.adopt() == set()
    clock.now += LEASE_S
    assert here.adopt() == set()
    clock.now += 1
    assert here.adopt() == {there.name}


def test_an_owner_with_a_heartbeat_lives(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(owners, "_locked", lambda descriptor: False)  # as on a share without locks
    first, second = Owner(tmp_path, clock), Owner(tmp_path, clock)
    for _ in range(10):
        clock.now += LEASE_S - 1
        first.heartbeat()
        assert second.adopt() == set()


def test_a_frozen_owner_is_adopted_and_goes_on_under_another_name(tmp_path, clock):
    frozen, other = Owner(tmp_path, clock), Owner(tmp_path, clock)
    before = frozen.name
    other.adopt()
    clock.now += LEASE_S + 1
    other.heartbeat()

    assert other.adopt() == {before}
    frozen.heartbeat()
    assert frozen.name != before
    assert frozen.adopt() == set()


def test_what_a_dead_owner_had_adopted_is_adopted_from_it(tmp_path, clock):
    first, second, third = (Owner(tmp_path, clock) for _ in range(3))
    first.leave(claims_left=True)
    second.adopt()
    second.leave(claims_left=True)

    assert third.adopt() == {first.name, second.name}


def test_claims_of_an_owner_without_a_record_are_adopted_by_one(tmp_path, clock):
    first, second = Owner(tmp_path, clock), Owner(tmp_path, clock)

    assert first.adopt_unknown("6a2b")
    assert not second.adopt_unknown("6a2b")
    assert not first.adopt_unknown(second.name)
    assert first.adopt() == {"6a2b"}


def test_an_owner_that_leaves_nothing_leaves_no_record(tmp_path, clock):
    Owner(tmp_path, clock).leave(claims_left=False)

    assert list(tmp_path.iterdir()) == []


def test_owners_that_left_are_not_remembered(tmp_path, clock):
    here = Owner(tmp_path, clock)
    for _ in range(3):
        other = Owner(tmp_path, clock)
        here.adopt()
        other.leave(claims_left=False)

    here.adopt()

    assert here._watched == {}
