import faulthandler
import os
import signal
import sys

import pytest

from orchestrator.contract.ledger.ledger import Claim
from tests.support.fakes import exit_code_of
from workers.classify.journal import BATCH, CRASHES, FINISHED, IMAGE, KILLS, Journal, Notes

JOB = "c261123-143355-7f3a2b"
OTHERS = ((IMAGE, 32), (IMAGE, 34))  # that are tried before


def die_in(folder, shard, fence, *tried, crash=False):
    """The journal of a worker that died at the last entry of `tried`."""
    folder.mkdir(exist_ok=True)
    notes = "".join(f'["{what}", {index}]\n' for what, index in tried)
    text = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00 [python]\n" if crash else ""
    (folder / f"{shard:08d}.{fence}.jsonl").write_text(notes + text)


def evidence(folder, shard=5):
    return Journal(folder, Claim(JOB, shard, 99, 4)).evidence()


def deaths(folder, shard=5):
    return dict(evidence(folder, shard).deaths)


def test_the_last_note_of_each_journal_counts_as_a_death(tmp_path):
    die_in(tmp_path, 5, 1, (BATCH, 0), (BATCH, 32))
    die_in(tmp_path, 5, 2, (BATCH, 0), (BATCH, 32), (IMAGE, 32), (IMAGE, 33))
    die_in(tmp_path, 5, 3, (BATCH, 0), (BATCH, 32), (IMAGE, 32), (IMAGE, 33))

    assert deaths(tmp_path) == {(BATCH, 32): 1, (IMAGE, 33): 2}


def test_an_image_that_crashes_twice_is_poison_whatever_was_tried_before(tmp_path):
    die_in(tmp_path, 5, 1, (IMAGE, 33), crash=True)
    assert not evidence(tmp_path).is_poison(IMAGE, 33)

    die_in(tmp_path, 5, 2, (IMAGE, 33), crash=True)

    assert CRASHES == 2
    assert evidence(tmp_path).is_poison(IMAGE, 33)
    assert evidence(tmp_path).num_explained == 2


def test_an_image_at_which_processes_are_killed_alone_is_poison_once_that_repeats_while_others_pass(tmp_path):
    for fence in range(1, KILLS):
        die_in(tmp_path, 5, fence, *OTHERS, (IMAGE, 33))
        assert not evidence(tmp_path).is_poison(IMAGE, 33)

    die_in(tmp_path, 5, KILLS, *OTHERS, (IMAGE, 33))

    assert evidence(tmp_path).is_poison(IMAGE, 33)
    assert not evidence(tmp_path).is_poison(IMAGE, 32)


def test_processes_that_are_killed_before_anything_else_was_tried_prove_nothing(tmp_path):
    for fence in range(20):
        die_in(tmp_path, 5, fence, (IMAGE, 33))

    assert not evidence(tmp_path).is_poison(IMAGE, 33)
    assert evidence(tmp_path).num_explained == 0


def test_an_image_that_passes_alone_is_cleared_of_the_kills_before(tmp_path):
    for fence in range(1, KILLS):
        die_in(tmp_path, 5, fence, *OTHERS, (IMAGE, 33))
    die_in(tmp_path, 5, KILLS, *OTHERS, (IMAGE, 33), (BATCH, 32))
    die_in(tmp_path, 5, KILLS + 1, *OTHERS, (IMAGE, 33))

    assert not evidence(tmp_path).is_poison(IMAGE, 33)


def test_journals_are_read_in_the_order_of_their_claims(tmp_path):
    die_in(tmp_path, 5, 9, *OTHERS, (IMAGE, 33), (BATCH, 32))
    for fence in range(10, 10 + KILLS):
        die_in(tmp_path, 5, fence, *OTHERS, (IMAGE, 33))

    assert evidence(tmp_path).is_poison(IMAGE, 33)


def test_crashes_and_kills_of_one_image_count_together(tmp_path):
    die_in(tmp_path, 5, 1, *OTHERS, (IMAGE, 33), crash=True)
    for fence in range(2, 1 + KILLS):
        assert not evidence(tmp_path).is_poison(IMAGE, 33)
        die_in(tmp_path, 5, fence, *OTHERS, (IMAGE, 33))

    assert evidence(tmp_path).is_poison(IMAGE, 33)


def test_a_batch_is_not_poison_for_kills_before_its_images_were_tried_alone(tmp_path):
    for fence in range(1, 10):
        die_in(tmp_path, 5, fence, (BATCH, 0), (BATCH, 32))
    assert not evidence(tmp_path).is_poison(BATCH, 32)

    for fence in range(10, 10 + KILLS):
        die_in(tmp_path, 5, fence, (BATCH, 0), *OTHERS, (BATCH, 32))

    assert evidence(tmp_path).is_poison(BATCH, 32)


def test_a_journal_that_was_closed_is_no_death_however_it_ended(tmp_path):
    journal = Journal(tmp_path, Claim(JOB, 5, 1, 3))
    with journal.open() as notes:
        notes.trying(BATCH, 0)

    def fail() -> None:
        with Journal(tmp_path, Claim(JOB, 5, 2, 3)).open() as notes:
            notes.trying(BATCH, 0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()

    assert deaths(tmp_path) == {}


def test_what_was_tried_last_when_a_journal_was_closed_has_not_passed(tmp_path):
    for fence in range(1, 1 + KILLS):
        die_in(tmp_path, 5, fence, *OTHERS, (IMAGE, 33))
    die_in(tmp_path, 5, 1 + KILLS, *OTHERS, (IMAGE, 33), (FINISHED, 0))

    assert evidence(tmp_path).is_poison(IMAGE, 33)


def test_the_deaths_of_another_shard_are_its_own(tmp_path):
    die_in(tmp_path, 6, 1, (BATCH, 0))

    assert deaths(tmp_path, shard=5) == {}
    assert deaths(tmp_path, shard=6) == {(BATCH, 0): 1}


def test_a_job_whose_workers_live_has_no_deaths(tmp_path):
    assert deaths(tmp_path / "not there") == {}


@pytest.mark.parametrize("left", [b"", b'["batch", 0]\n["bat', b"\0\0\0\0", b"\xff\n", b"5\n", b"[1]\n", b"[[], {}]\n"])
def test_a_journal_cut_by_a_power_failure_names_no_image(left, tmp_path):
    (tmp_path / "00000005.1.jsonl").write_bytes(left)

    assert deaths(tmp_path) == {}


def test_a_note_is_on_the_file_before_it_is_tried(tmp_path):
    with Journal(tmp_path, Claim(JOB, 5, 1, 3)).open() as notes:
        assert isinstance(notes, Notes)
        notes.trying(IMAGE, 7)

        assert (tmp_path / "00000005.1.jsonl").read_text() == '["image", 7]\n'


@pytest.mark.parametrize(
    ("signal_", "crashes"), [(signal.SIGSEGV, 1), (signal.SIGABRT, 1), (signal.SIGBUS, 1), (signal.SIGKILL, 0)]
)
def test_a_process_notes_a_crash_and_cannot_note_that_it_was_killed(signal_, crashes, tmp_path):
    def die():
        with Journal(tmp_path, Claim(JOB, 5, 1, 3)).open() as notes:
            notes.trying(IMAGE, 32)
            notes.trying(IMAGE, 33)
            os.kill(os.getpid(), signal_)

    assert exit_code_of(die) == -signal_

    found = evidence(tmp_path)
    assert (found.crashes[IMAGE, 33], found.kills[IMAGE, 33]) == (crashes, 1 - crashes)
    assert dict(found.deaths) == {(IMAGE, 33): 1}


def test_a_crash_of_a_thread_that_serves_lines_convicts_no_image_of_a_shard(tmp_path):
    frames = 'Stack (most recent call first):\n  File "/opt/pigeonhole/workers/lines/decode.py", line 80 in decode\n'
    for fence in range(1, CRASHES + 1):
        die_in(tmp_path, 5, fence, (IMAGE, 33), crash=True)
        with (tmp_path / f"{5:08d}.{fence}.jsonl").open("a") as journal:
            journal.write(frames)

    found = evidence(tmp_path)

    assert (found.crashes[IMAGE, 33], found.deaths[IMAGE, 33]) == (0, CRASHES)
    assert not found.is_poison(IMAGE, 33)


def thread(*frames):
    return "Thread 0x7f (most recent call first):\n" + "".join(f'  File "/opt/{frame}\n' for frame in frames) + "\n"


OF_SHARD = thread(
    'modeling/images/decode.py", line 9 in decode_image', 'workers/classify/careful.py", line 3 in _alone'
)
OF_LINE = thread('modeling/images/decode.py", line 9 in decode_image', 'workers/lines/decode.py", line 9 in _decode')
IDLE = thread('workers/lines/decode.py", line 9 in _run')
READING = thread('modeling/inference/decoders.py", line 9 in _read')


@pytest.mark.parametrize(
    ("threads", "slow", "deaths"),
    [
        (IDLE + OF_SHARD, {33: 1}, {}),
        (OF_SHARD + OF_LINE, {}, {(IMAGE, 33): 1}),  # the decoder of the line may keep Python's lock
        (IDLE + READING, {}, {(IMAGE, 33): 1}),  # the storage hangs
    ],
)
def test_a_process_that_hangs_while_it_decodes_an_image_alone_leaves_a_note_against_it(threads, slow, deaths, tmp_path):
    die_in(tmp_path, 5, 1, (IMAGE, 32), (IMAGE, 33))
    with (tmp_path / "00000005.1.jsonl").open("a") as journal:
        journal.write(f"Timeout (0:05:00)!\n{threads}")

    found = evidence(tmp_path)

    assert (dict(found.slow), dict(found.deaths)) == (slow, deaths)


def test_a_process_that_hangs_in_a_batch_has_its_images_tried_alone(tmp_path):
    die_in(tmp_path, 5, 1, (BATCH, 32))
    with (tmp_path / "00000005.1.jsonl").open("a") as journal:
        journal.write(f"Timeout (0:05:00)!\n{OF_SHARD}")

    assert deaths(tmp_path) == {(BATCH, 32): 1}


def test_crashes_go_where_they_went_before_once_a_journal_is_closed(tmp_path, capfd):
    def die():
        faulthandler.enable(sys.__stderr__.fileno())
        with Journal(tmp_path, Claim(JOB, 5, 1, 3)).open() as notes:
            notes.trying(IMAGE, 33)
        os.kill(os.getpid(), signal.SIGSEGV)

    assert exit_code_of(die) == -signal.SIGSEGV

    assert (tmp_path / "00000005.1.jsonl").read_text() == '["image", 33]\n["finished", 0]\n'
    assert "Fatal Python error: Segmentation fault" in capfd.readouterr().err


def test_an_image_that_took_too_long_is_noted_whatever_was_being_tried(tmp_path):
    for fence, opened in ((1, False), (2, True)):
        journal = Journal(tmp_path, Claim(JOB, 5, fence, 1))
        if opened:
            die_in(tmp_path, 5, fence, (BATCH, 0), (IMAGE, 7))
        journal.note_slow(7)
        journal.note_slow(9)

    assert evidence(tmp_path).slow == {7: 2, 9: 2}
    assert deaths(tmp_path) == {}


def test_a_shard_without_notes_has_no_journal(tmp_path):
    die_in(tmp_path, 6, 1, (BATCH, 0))

    assert not Journal(tmp_path, Claim(JOB, 5, 1, 1)).exists
    assert not Journal(tmp_path / "not there", Claim(JOB, 5, 1, 1)).exists
    assert Journal(tmp_path, Claim(JOB, 6, 2, 1)).exists
