"""`pigeonhole lines` with a real server, and no worker."""

import json
import re
from dataclasses import replace

import pytest
import redis

from orchestrator.contract.lines.answers import Verdict, encode_facts
from orchestrator.contract.lines.registry import LineRegistry, read_line
from orchestrator.contract.lines.requests import Decided, GivenAnswer, Push
from orchestrator.contract.lines.store import LineStore
from orchestrator.contract.server import connect_raw
from orchestrator.contract.settings import Settings
from orchestrator.lines.follow import AnswerFollower, wait_for_more
from tests.support.line_commands import create, run, shown
from tests.support.line_worker import report_for_a_minute
from tests.support.server import running_server, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def home(operators_home):
    return operators_home


@pytest.fixture
def client(raw_client):
    return raw_client


def test_a_line_is_created_shown_changed_and_removed(home, client):
    created = create("--deadline", "300ms")
    assert created.stderr.splitlines() == [
        "warning: digits@1 has no calibration: it accepts every image, and no item goes to the review bin",
        "line post: created",
    ]
    assert (
        "error: line 'post' exists; change it with `pigeonhole lines set`"
        in run("create", "post", "--model", "digits", "--fallback", "F", "--review", "R", code=2).stderr
    )

    changed = run("set", "post", "--deadline", "200ms", "--bin", "0=x", "--remove-bin", "9")
    assert changed.stderr.splitlines()[-1] == "line post: deadline_ms: 300 -> 200; 0: 0a,0b -> x; 9: 9a,9b -> no bin"
    facts = shown("show", "post")
    assert (facts["state"], facts["map_version"], facts["model_version"]) == ("opening", 2, "digits@1")
    assert facts["settings"]["bins"]["0"] == ["x"]
    assert read_line(client, "post").settings.deadline_ms == 200
    assert "opening: no worker has it" in run("show", "post").stdout

    assert "nothing can be confirmed; remove with --yes" in run("remove", "post", code=2).stderr
    assert shown("remove", "post", "--yes") == {"removed": "post", "num_answers": 0, "num_waiting": 0}
    assert read_line(client, "post") is None
    assert client.keys("*:line:post*") == []
    assert not (home / "lines" / "post").exists()
    assert "there is no line 'post'" in run("show", "post", code=4).stderr


def test_a_line_whose_keys_hold_something_else_hides_no_other(home, client):
    create()
    bins = [word for digit in range(10) for word in ("--bin", f"{digit}={digit}a")]
    run("create", "belt", "--model", "digits", "--fallback", "F", "--review", "R", *bins)
    client.hset("{pigeonhole}:line:post:line", "bytes", "x")
    client.hset("{pigeonhole}:line:post:capacity", "w1", "9999999999999 1 1")
    client.hset("{pigeonhole}:line:post:workers", "w1", '{"trouble": 5, "loading": ["x"]}')
    assert shown("show", "post")["bytes_waiting"] == 0
    client.set("{pigeonhole}:line:post:capacity", "x")

    listed = run("list", "--json")

    assert {line["line"]: line["state"] for line in json.loads(listed.stdout)} == {"belt": "opening", "post": "unknown"}
    assert re.search(r"line post: its state cannot be read: .*WRONGTYPE", listed.stderr)


def test_a_paused_line_refuses_and_a_resumed_one_takes(home, client):
    create()
    push = Push("1/a", "00", 500, 1, "ask")

    assert run("pause", "post").stderr == "line post is paused\n"
    report_for_a_minute(LineStore(client, "post"), "w1", "4.0 10.0 0 0", state="paused")
    assert run("list").stdout.splitlines()[1].split()[-1] == "1"  # its worker is there, and has it loaded
    paused = LineStore(client, "post").admit([push], "c")[0].verdict
    assert shown("show", "post")["state"] == "paused"
    assert run("resume", "post").stderr == "line post is not paused\n"
    assert run("resume", "post").stderr == "line post is not paused already\n"

    assert (paused, LineStore(client, "post").admit([push], "c")[0].verdict) == ("paused", "welcome")


def test_bins_are_full_disabled_and_enabled_again(home, client):
    create()

    assert run("bins", "post", "full", "3a").stderr == "line post: bin 3a is full\n"
    told = run("bins", "post", "disable", "3a", "3b").stderr
    assert told.splitlines() == [
        "line post: bin 3a is full and disabled, bin 3b is disabled",
        "warning: no bin is left for the label '3': items go to the fallback bin with the reason `bin_full`",
    ]
    assert read_line(client, "post").closed == {"3a", "3b"}
    run("set", "post", "--bin", "3=3b")
    assert (read_line(client, "post").full, read_line(client, "post").disabled) == ((), ("3b",))
    states = shown("bins", "post", "enable", "3b")
    assert (states["bins"]["3b"], states["map_version"]) == ("open", 5)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["bins", "post", "full", "33b"], 2, "line 'post' has no bin '33b'; did you mean '3b'? there are 0a, 0b, 1a,"),
        (["bins", "post", "full", "F"], 2, "bin 'F' is the fallback or review bin of line 'post': it must take items"),
        (["bins", "pots", "full", "3a"], 4, "there is no line 'pots'; did you mean 'post'? there are: post"),
        (["pause", "pots"], 4, "there is no line 'pots'"),
        (["remove", "pots", "--yes"], 4, "there is no line 'pots'"),
        (["set", "pots", "--deadline", "1s"], 4, "there is no line 'pots'"),
        (["set", "post", "--remove-bin", "ten"], 2, "--remove-bin 'ten': the map has no such label"),
        (["set", "post", "--bin", "ten=3"], 2, "digits@1 has no label 'ten'"),
        (["set", "post", "--model", "letters"], 4, "no model 'letters'"),
        (["show", "pots"], 4, "there is no line 'pots'"),
    ],
)
def test_a_mistake_changes_nothing(home, client, arguments, code, told):
    create()
    before = read_line(client, "post")

    result = run(*arguments, code=code)

    assert told in result.stderr
    assert result.stderr.count("\n") == 1
    assert read_line(client, "post") == before


def test_a_file_replaces_the_map_and_options_count_before_it(home, client, tmp_path):
    file = tmp_path / "line.toml"
    file.write_text('name = "post"\ndeadline = "300ms"\nkeep = "2d"\n[bins]\n0 = ["1", "2"]\n')
    run("create", "--model", "digits", "--fallback", "F", "--review", "R", "--keep", "1d", "--file", str(file))
    assert read_line(client, "post").settings.keep_s == 86_400

    file.write_text('[bins]\n1 = "3"\n')
    run("set", "post", "--file", str(file), "--degraded", "digits", "--root", str(tmp_path))

    settings = read_line(client, "post").settings
    assert (settings.bins, settings.deadline_ms, settings.degraded) == ({"1": ("3",)}, 300, "digits")
    assert settings.roots == (str(tmp_path),)
    run("set", "post", "--no-degraded", "--no-roots")
    assert (read_line(client, "post").settings.degraded, read_line(client, "post").settings.roots) == (None, ())
    file.write_text('server = "redis://elsewhere"\n')
    assert "the server of a line cannot be changed" in run("set", "post", "--file", str(file), code=2).stderr


def test_labels_of_a_model_to_come_are_kept_where_that_is_asked_for(home, client):
    told = create("--bin", "ten=3", "--allow-unknown-labels").stderr

    assert "warning: digits@1 has no label 'ten'; the map keeps it" in told
    assert read_line(client, "post").settings.bins["ten"] == ("3",)


def test_show_tells_of_workers_and_of_what_waits(home, client):
    create()
    store = LineStore(client, "post")
    store.admit([Push("1/a", "00", 60_000, 3, "image", b"abc"), Push("1/b", "00", 60_000, 3, "image", b"abc")], "c")
    report_for_a_minute(store, "w1", "4.0 10.0 0 0", state="open", model="digits@1", bound_ms=12.5)
    report_for_a_minute(store, "w2", "0 0 0 0", state="opening", trouble="digits@1 needs 9 GB")
    client.hset(store.key("capacity"), "w3", "nonsense")
    store.take("w1", 1, 1_000, 1 << 20)

    facts, told = shown("show", "post"), run("show", "post").stdout

    assert shown("stats", "post")["whole"]["waiting"] == 2
    assert (facts["state"], facts["num_waiting"], facts["bytes_waiting"], facts["num_held"]) == ("open", 2, 6, 1)
    assert (facts["bound_ms"], [worker["worker"] for worker in facts["workers"]]) == (12.5, ["w1", "w2", "w3"])
    assert "waiting        2 of 1,000 requests, 6 B of 268.4 MB; workers hold 1\n" in told
    assert "device         free for a push after at most 12 ms\n" in told
    assert "worker         w1: open, digits@1, 4.0 ms an image, an answer after 10 ms\n" in told
    assert "worker         w2: opening; digits@1 needs 9 GB\n" in told
    assert "worker         w3: gone; its report cannot be read\n" in told


def test_a_line_may_have_a_server_of_its_own(home, client):
    with running_server() as own:
        create("--server", own.url)

        assert LineStore(connect_raw(own.url), "post").epoch() is not None
        assert LineStore(client, "post").epoch() is None
        assert shown("show", "post")["state"] == "opening"
        own.kill()
        gone = run("show", "post", "--json")
        assert json.loads(gone.stdout)["state"] == "unknown"
        assert "line post: no server answers at unix://" in gone.stderr
        assert (
            "no server answers at unix://"
            in run(
                "create", "two", "--model", "digits", "--fallback", "F", "--review", "R", "--server", own.url, code=69
            ).stderr
        )
        assert not (home / "lines" / "two").exists()

        kept = run("pause", "post", code=69).stderr
        assert "the change of line post is on the disk, and counts as soon as its server takes it: " in kept
        assert LineRegistry(Settings(home=home), client).get("post").paused

        refused = run("remove", "post", "--yes", code=69).stderr
        assert "the server of line post does not answer at unix://" in refused
        assert "start it, or remove the line with --server-is-gone" in refused
        assert (home / "lines" / "post").exists()
        assert shown("remove", "post", "--yes", "--server-is-gone") == {
            "removed": "post", "num_answers": None, "num_waiting": None,
        }  # fmt: skip
        assert not (home / "lines" / "post").exists()
        assert read_line(client, "post") is None


def test_only_a_server_of_a_lines_own_can_be_gone(home, client):
    create()

    assert "line post has no server of its own" in run("remove", "post", "--yes", "--server-is-gone", code=2).stderr
    assert read_line(client, "post") is not None


def test_a_machine_without_the_home_sees_the_lines_of_the_server(home, client, tmp_path, monkeypatch):
    create()
    monkeypatch.setenv("PIGEONHOLE_HOME", str(tmp_path / "elsewhere"))

    assert [facts["line"] for facts in json.loads(run("list", "--json").stdout)] == ["post"]
    assert shown("show", "post")["model_version"] is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_line_that_cannot_be_read_keeps_no_other_from_an_emptied_server(home, client):
    create()
    registry = LineRegistry(Settings(home=home), client)
    (home / "lines" / "broken").mkdir()
    (home / "lines" / "broken" / "line.json").write_text("{")
    client.flushall()

    found = registry.refill()

    assert (list(found.lines), list(found.troubles)) == (["post"], ["broken"])
    assert "not JSON" in found.troubles["broken"]
    assert read_line(client, "post") == registry.get("post")
    assert LineStore(client, "post").epoch() is not None


def test_a_line_whose_keys_somebody_else_wrote_keeps_no_other_from_an_emptied_server(home, client):
    create()
    registry = LineRegistry(Settings(home=home), client)
    registry.create(replace(registry.get("post").settings, name="belt"))
    client.delete(LineStore(client, "post").key("line"))
    client.set(LineStore(client, "belt").key("line"), "x")

    found = registry.refill()

    assert (list(found.lines), list(found.troubles)) == (["post"], ["belt"])
    assert "WRONGTYPE" in found.troubles["belt"]
    assert LineStore(client, "post").epoch() is not None


# Answers


def answered(client, *pushes: tuple[str, str, str | None]) -> LineStore:
    """A line on which a worker has answered items with a label and a reason; None as label: nobody did, in time."""
    create()
    store = LineStore(client, "post")
    report_for_a_minute(store, "w1", "1.0 1.0 0 0", state="open")
    for item, label, reason in pushes:
        store.admit([Push(f"1/{item}", "00", 60_000 if label else 1, 3, "image", b"abc")], "c")
        if label:
            store.take("w1", 1, 1_000, 1 << 20)
            rest = encode_facts(
                label=label, score=0.5, scores=[(label, 0.5)], model="digits@1", stage_ms={"queue": 1.5}
            )
            store.answer([GivenAnswer(f"1/{item}", Verdict(f"{label}a", reason), Verdict("F", "late", "device"), rest)])
    return store


def test_an_answer_is_looked_up_by_item_and_pass(home, client):
    answered(client, ("a.png", "3", "next_bin"))

    answer, told = shown("answer", "post", "a.png"), run("answer", "post", "a.png").stdout

    assert [answer[key] for key in ("item", "pass", "bin", "reason", "label", "score", "decision", "model")] == [
        "a.png", 1, "3a", "next_bin", "3", 0.5, None, "digits@1",
    ]  # fmt: skip
    assert (answer["scores"], answer["stage_ms"], answer["map_version"]) == ([["3", 0.5]], {"queue": 1.5}, 0)
    assert "reason         next_bin\n" in told
    assert (
        "line 'post' has no answer for item 'a.png', pass 2"
        in run("answer", "post", "a.png", "--pass", "2", code=4).stderr
    )
    assert "there is no line 'pots'" in run("answer", "pots", "a.png", code=4).stderr
    assert "a pass is 1 to 1000000, not 0" in run("answer", "post", "a.png", "--pass", "0", code=2).stderr
    assert "an item's name is 1 to 1000 bytes" in run("answer", "post", "", code=2).stderr


def test_who_looks_an_answer_up_answers_what_is_late(home, client):
    store = answered(client, ("late.png", None, None))
    wait_until(lambda: client.time()[0] * 1000 > store.client.zscore(store.key("deadlines"), "1/late.png"), what="late")

    assert (shown("answer", "post", "late.png")["bin"], shown("answer", "post", "late.png")["reason"]) == ("F", "late")


def test_the_last_answers_are_shown_then_those_that_come(home, client, monkeypatch):
    store = answered(client, ("a", "1", None), ("b", "2", None), ("c", "3", None))
    printed = [
        json.loads(line) for line in run("tail", "post", "--last", "2", "--no-follow", "--json").stdout.splitlines()
    ]
    assert [answer["item"] for answer in printed] == ["b", "c"]
    assert "  c pass 1  bin 3a  accepted  3 0.500  " in run("tail", "post", "--last", "1", "--no-follow").stdout
    assert run("tail", "post", "--last", "0", "--no-follow").stdout == ""
    coming = iter("de")

    def push_another(store: LineStore) -> None:
        item = next(coming, None)
        if item is None:
            raise KeyboardInterrupt
        store.settle([Decided(f"1/{item}", Verdict("F", "busy"), "00")], "c")

    def push_another_while_the_server_goes_away(store: LineStore) -> None:
        if next(away, False):
            raise redis.ConnectionError("gone")
        push_another(store)

    away = iter([False, True, True])
    monkeypatch.setattr("orchestrator.cli.lines.answers.SERVER_AGAIN_S", 0.0)
    monkeypatch.setattr("orchestrator.lines.follow.wait_for_more", push_another_while_the_server_goes_away)
    followed = run("tail", "post", "--last", "1", "--json", code=130)

    assert [json.loads(line)["item"] for line in followed.stdout.splitlines()] == ["c", "d", "e"]
    assert followed.stderr.splitlines() == [
        "the server of line post does not answer, waiting for it: gone",
        "the server of line post answers again", "interrupted",
    ]  # fmt: skip
    assert wait_for_more(store) is None


def test_a_line_whose_file_is_broken_can_be_removed(home, client):
    answered(client, ("a", "1", None))
    (home / "lines" / "post" / "line.json").write_text("{")

    assert "line.json" in run("show", "post", code=2).stderr
    assert shown("remove", "post", "--yes") == {"removed": "post", "num_answers": 1, "num_waiting": 0}
    assert "there is no line 'post'" in run("remove", "post", "--yes", code=4).stderr


def test_answers_of_one_millisecond_are_each_followed_once(home, client):
    store = answered(client)
    follower = AnswerFollower(store, 0)
    assert follower.read() == []

    names = [f"{number:04d}" for number in range(1_500)]
    store.settle([Decided(f"1/{name}", Verdict("F", "busy"), "00") for name in reversed(names)], "c")
    found = [answer.item for _ in range(3) for answer in follower.read()]

    assert sorted(found) == names


def test_counts_are_shown_for_the_last_minutes_and_for_all_time(home, client):
    store = answered(client, ("a", "1", None), ("b", "2", "low_confidence"))
    store.settle([Decided("1/c", Verdict("F", "busy"), "00")], "c")
    store.count({"batch:2": 3, "batch:4": 1, "queue:5": 10})

    facts, told = shown("stats", "post", "--minutes", "5"), run("stats", "post").stdout

    assert facts["whole"]["outcomes"] == {"accept": 1, "busy": 1, "low_confidence": 1}
    assert facts["whole"]["shares"]["accept"] == pytest.approx(1 / 3)
    assert facts["recent"]["batches"] == {"2": 3, "4": 1}
    assert (facts["whole"]["mean_batch"], facts["whole"]["waits"]["queue"]["p50_ms"]) == (2.5, 4.5)
    assert facts["whole"]["latency"]["p99_ms"] > 0
    assert re.search(r"^  low_confidence +1 \(33\.33%\) +1 \(33\.33%\)$", told, re.MULTILINE)
    assert re.search(r"^images in a batch +2\.5 +2\.5$", told, re.MULTILINE)
    assert "answered within, over the whole time" in told
    assert "'--minutes'" in run("stats", "post", "--minutes", "121", code=2).stderr
    assert "there is no line 'pots'" in run("stats", "pots", code=4).stderr


def test_answers_are_looked_up_without_a_server_only_in_files(home, client, monkeypatch):
    answered(client, ("a.png", "3", None))
    monkeypatch.setenv("PIGEONHOLE_SERVER_URL", "unix:///tmp/pigeonhole-nowhere.sock")

    for words in (["answer", "post", "a.png"], ["tail", "post"], ["stats", "post"]):
        assert "no server answers at unix:///tmp/pigeonhole-nowhere.sock" in run(*words, code=69).stderr
