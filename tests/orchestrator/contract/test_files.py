import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.contract.files import link_once, temporary_beside, write_atomic


def test_write_atomic_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"a long first version")

    write_atomic(path, b"second")

    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_written_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "other").touch()

    write_atomic(tmp_path / "file", b"data")

    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_write_atomic_leaves_the_old_file_and_no_temporary_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full_disk(descriptor):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_atomic(path, b"new")

    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]


def test_a_temporary_is_hidden_and_goes_when_its_block_fails(tmp_path):
    names = []

    def write_half():
        with temporary_beside(tmp_path / "file") as temporary:
            names.append((temporary.parent, temporary.name[:6]))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert names == [(tmp_path, ".file.")]
    assert list(tmp_path.iterdir()) == []


def test_linking_takes_a_free_name(tmp_path):
    temporary, path = tmp_path / "temporary", tmp_path / "file"
    temporary.write_bytes(b"data")

    assert link_once(temporary, path)

    assert path.read_bytes() == b"data"


def test_linking_leaves_a_taken_name_as_it_is(tmp_path):
    temporary, path = tmp_path / "temporary", tmp_path / "file"
    temporary.write_bytes(b"new")
    path.write_bytes(b"old")

    assert not link_once(temporary, path)

    assert path.read_bytes() == b"old"


def test_of_many_that_link_at_once_one_wins(tmp_path):
    path = tmp_path / "file"
    temporaries = [tmp_path / f"temporary {number}" for number in range(32)]
    for temporary in temporaries:
        temporary.write_text(temporary.name)

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda temporary: link_once(temporary, path), temporaries))

    assert won.count(True) == 1
    assert path.read_text() == temporaries[won.index(True)].name


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_gets_a_rename(code, tmp_path, monkeypatch):
    def link(source, target):
        raise OSError(code, "no hard links")

    monkeypatch.setattr(os, "link", link)
    first, second, path = tmp_path / "first", tmp_path / "second", tmp_path / "file"
    first.write_text("first")
    second.write_text("second")

    assert link_once(first, path)
    assert not link_once(second, path)

    assert path.read_text() == "first"


def test_a_link_whose_answer_was_lost_counts(tmp_path, monkeypatch):
    real_link = os.link

    def link(source, target):
        real_link(source, target)
        raise OSError(errno.EIO, "the server did not answer")

    monkeypatch.setattr(os, "link", link)
    temporary, path = tmp_path / "temporary", tmp_path / "file"
    temporary.write_text("data")

    assert link_once(temporary, path)
    assert path.read_text() == "data"


def test_any_other_trouble_with_a_link_is_told(tmp_path):
    (tmp_path / "temporary").touch()

    with pytest.raises(FileNotFoundError):
        link_once(tmp_path / "temporary", tmp_path / "no folder" / "file")
