import pytest

from orchestrator.contract.ledger.ledger import Claim
from workers.classify.journal import BATCH, IMAGE, SLOW, Journal, Notes

JOB = "c261123-143355-7f3a2b"


def die_in(folder, shard, fence, *tried):
    """The journal of a worker that died at the last entry of `tried`."""
    with Journal(folder, Claim(JOB, shard, fence, 3)).open() as notes:
        for what, index in tried:
            notes.trying(what, index)
        path = next(folder.glob(f"{shard:08d}.{fence}.jsonl"))
        kept = path.read_bytes()
    path.write_bytes(kept)


def deaths(folder, shard=5):
    return dict(Journal(folder, Claim(JOB, shard, 99, 4)).deaths())


def test_the_last_note_of_each_journal_counts_as_a_death(tmp_path):
    die_in(tmp_path, 5, 1, (BATCH, 0), (BATCH, 32))
    die_in(tmp_path, 5, 2, (BATCH, 0), (BATCH, 32), (IMAGE, 32), (IMAGE, 33))
    die_in(tmp_path, 5, 3, (BATCH, 0), (BATCH, 32), (IMAGE, 32), (IMAGE, 33))

    assert deaths(tmp_path) == {(BATCH, 32): 1, (IMAGE, 33): 2}


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


def test_the_deaths_of_another_shard_are_its_own(tmp_path):
    die_in(tmp_path, 6, 1, (BATCH, 0))

    assert deaths(tmp_path, shard=5) == {}
    assert deaths(tmp_path, shard=6) == {(BATCH, 0): 1}


def test_a_job_whose_workers_live_has_no_deaths(tmp_path):
    assert deaths(tmp_path / "not there") == {}


@pytest.mark.parametrize("left", [b"", b'["batch", 0]\n["bat', b"\0\0\0\0", b"\xff\n"])
def test_a_journal_cut_by_a_power_failure_names_no_image(left, tmp_path):
    (tmp_path / "00000005.1.jsonl").write_bytes(left)

    assert deaths(tmp_path) == {}


def test_a_note_is_on_the_file_before_it_is_tried(tmp_path):
    with Journal(tmp_path, Claim(JOB, 5, 1, 3)).open() as notes:
        assert isinstance(notes, Notes)
        notes.trying(IMAGE, 7)

        assert (tmp_path / "00000005.1.jsonl").read_text() == '["image", 7]\n'


def test_an_image_that_took_too_long_is_noted_whatever_was_being_tried(tmp_path):
    for fence, opened in ((1, False), (2, True)):
        journal = Journal(tmp_path, Claim(JOB, 5, fence, 1))
        if opened:
            die_in(tmp_path, 5, fence, (BATCH, 0), (IMAGE, 7))
        journal.note_slow(7)
        journal.note_slow(9)

    assert deaths(tmp_path) == {(SLOW, 7): 2, (SLOW, 9): 2}


def test_a_shard_without_notes_has_no_journal(tmp_path):
    die_in(tmp_path, 6, 1, (BATCH, 0))

    assert not Journal(tmp_path, Claim(JOB, 5, 1, 1)).exists
    assert not Journal(tmp_path / "not there", Claim(JOB, 5, 1, 1)).exists
    assert Journal(tmp_path, Claim(JOB, 6, 2, 1)).exists
