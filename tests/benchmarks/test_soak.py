"""What `benchmarks.soak` takes for growth, and for a lost file."""

import json
import math

import pytest

from benchmarks.chaos_hot_folder import judge
from benchmarks.soak_growth import Sample, growing, growth, kind_of_child
from orchestrator.hot_folder.folders import open_hot_folder
from tests.support.hot_folders import Scans

HOUR_S, WARM_UP_S = 3600, 240.0


def life(pid, start_s, end_s, *, rss_mb=lambda at_s, age_s: 100.0, descriptors=lambda at_s, age_s: 20, kind="child"):
    """The samples of one process, every five seconds, with some noise."""
    times = range(start_s + 5, end_s, 5)
    return [
        Sample(at, kind, pid, at - start_s, rss_mb(at, at - start_s) + at % 7 / 10,
               descriptors(at, at - start_s) + at % 3, 2, 8)
        for at in times
    ]  # fmt: skip


def found(*processes, **how):
    return growing(growth([each for process in processes for each in process], WARM_UP_S, **how))


def test_a_process_that_warms_up_and_stays_as_it_is_does_not_grow():
    assert found(life(1, 0, HOUR_S, rss_mb=lambda at_s, age_s: min(age_s, 200.0))) == []


def test_memory_and_descriptors_that_grow_with_the_age_of_their_process_are_told():
    [text] = found(life(1, 0, HOUR_S, rss_mb=lambda at_s, age_s: 100 + age_s / 100))
    assert text.startswith("child: rss_mb grows: ")
    assert "'slope_per_hour': [36.0" in text

    [text] = found(life(1, 0, HOUR_S, descriptors=lambda at_s, age_s: 20 + age_s // 300))
    assert text.startswith("child: descriptors grows: ")


def test_what_grows_ever_more_slowly_is_told_from_a_leak_by_its_slope_in_old_processes():
    slowing = life(1, 0, HOUR_S, rss_mb=lambda at_s, age_s: 100 + 20 * (1 - math.exp(-age_s / 400)))
    leaking = life(2, 0, HOUR_S, rss_mb=lambda at_s, age_s: 100 + age_s / 400, kind="parent")

    figures = growth(slowing + leaking, WARM_UP_S)

    slopes = {
        kind: (facts["rss_mb"]["slope_per_hour"][0], facts["rss_mb"]["settled_per_hour"][0])
        for kind, facts in figures.items()
    }
    assert slopes["child"][0] > 4 * slopes["child"][1] > 0
    assert slopes["parent"] == pytest.approx((9, 9), abs=0.5)


def test_growth_within_processes_is_seen_although_each_lives_for_minutes_only():
    lives = [life(number, at, at + 700, rss_mb=lambda at_s, age_s: 100 + age_s / 50)
             for number, at in enumerate(range(0, HOUR_S, 700))]  # fmt: skip

    [text] = found(*lives)

    assert "'slope_per_hour': [72.0" in text


def test_processes_that_need_more_the_later_they_start_are_told():
    lives = [life(number, at, at + 120, rss_mb=lambda at_s, age_s, at=at: 100 + at / 100)
             for number, at in enumerate(range(0, HOUR_S, 120))]  # fmt: skip

    [text] = found(*lives)

    assert text.startswith("child: rss_mb grows: ")
    assert "'later_per_hour': [36.0" in text


def test_what_grows_before_the_calm_half_alone_does_not_count():
    def rising_first(at_s, age_s):
        return 100 + min(at_s, 1800) / 60

    [text] = found(life(1, 0, HOUR_S, rss_mb=rising_first))
    assert text.startswith("child: rss_mb grows: ")
    assert found(life(1, 0, HOUR_S, rss_mb=rising_first), calm_s=1800) == []


def test_what_a_process_is_meant_to_hold_is_allowed_and_no_more():
    server = life(1, 0, HOUR_S, rss_mb=lambda at_s, age_s: 10 + age_s / 400, kind="server")  # 9 MB an hour

    assert found(server, kept_mb={"server": 6.0}) == []
    [text] = found(server, kept_mb={"server": 4.0})
    assert text.startswith("server: rss_mb grows: ")


def test_connections_of_clients_that_live_long_are_no_growth_of_a_server_that_was_restarted():
    lives = [life(number, at, at + 300, descriptors=lambda at_s, age_s, at=at: 40 + at // 60, kind="server")
             for number, at in enumerate(range(0, HOUR_S, 300))]  # fmt: skip

    assert found(*lives) == []
    [text] = found(life(1, 0, HOUR_S, descriptors=lambda at_s, age_s: 40 + age_s // 60, kind="server"))
    assert text.startswith("server: descriptors grows: ")


def test_children_of_a_worker_are_told_apart():
    assert kind_of_child(["python", "-m", "modeling.training.process", "r.json"]) == "training"
    assert kind_of_child(["python", "-c", "from billiard.spawn import spawn_main; spawn_main(3)"]) == "worker child"
    assert kind_of_child(["python", "-c", "from billiard.semaphore_tracker import main"]) == "tracker"


def test_a_hot_folder_holds_one_answer_for_each_file(tmp_path):
    scans = Scans(open_hot_folder(tmp_path / "scans").path)
    wanted = {b"a", b"b"}
    for name in wanted:
        (scans.path / "done" / f"{name.decode()}.png").write_bytes(name)
        (scans.path / "done" / f"{name.decode()}.png.json").write_text(json.dumps({"bin": "1"}))

    def broken():
        return judge(scans, wanted, lambda facts: facts["bin"] == "1")

    assert broken() == []
    (scans.path / "done" / "again.png").write_bytes(b"a")
    assert broken() == ["1 files doubled", "1 files without an answer: ['again.png']"]
    (scans.path / "done" / "again.png").unlink()
    (scans.path / "done" / "b.png").unlink()
    assert broken() == ["1 files lost"]
    (scans.path / "done" / "b.png").write_bytes(b"other")
    assert broken() == ["1 files lost", "1 files with other bytes"]
