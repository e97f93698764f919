import errno
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modeling.durable import (
    STRICT,
    Number,
    PathText,
    decode_json,
    link_once,
    published_output,
    rename_answered,
    replace_durably,
    replaced_durably,
    replaced_folder,
    sync,
    temporary_beside,
    validated,
)
from modeling.errors import DataError, ModelingError


def test_replacing_replaces_the_whole_file(tmp_path):
    path = tmp_path / "file"
    replace_durably(path, b"a long first version")

    replace_durably(path, b"second")

    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_was_written_is_as_readable_as_any_other(tmp_path):
    (tmp_path / "other").touch()

    replace_durably(tmp_path / "file", b"data", mode=None)

    assert (tmp_path / "file").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_old_file_stays_and_no_temporary_when_replacing_fails(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full_disk(descriptor):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        replace_durably(path, b"new")

    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP])
def test_where_folders_cannot_be_synced_files_are(tmp_path, monkeypatch, error):
    files_only = []

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(error, os.strerror(error))
        files_only.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", fsync)
    replace_durably(tmp_path / "file", b"data")

    assert ((tmp_path / "file").read_bytes(), files_only) == (b"data", [4])


@pytest.mark.parametrize(("error", "name"), [(errno.EINVAL, "file"), (errno.EIO, ".")])
def test_a_file_that_cannot_be_synced_and_a_folder_of_a_broken_disk_are_errors(tmp_path, monkeypatch, error, name):
    (tmp_path / "file").touch()

    def refuse(descriptor):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match=re.escape(os.strerror(error))):
        sync(tmp_path / name)


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


@pytest.mark.parametrize("code", [errno.EIO, errno.EEXIST], ids=["no answer", "asked twice"])
def test_a_link_whose_answer_was_lost_counts(tmp_path, monkeypatch, code):
    real_link = os.link

    def link(source, target):
        real_link(source, target)
        raise OSError(code, "the server did not answer")

    monkeypatch.setattr(os, "link", link)
    temporary, path = tmp_path / "temporary", tmp_path / "file"
    temporary.write_text("data")

    assert link_once(temporary, path)
    assert path.read_text() == "data"


def test_a_link_that_failed_is_told_also_of_a_file_that_has_another_name(tmp_path, monkeypatch):
    temporary, path = tmp_path / "temporary", tmp_path / "file"
    temporary.write_text("data")
    (tmp_path / "another name").hardlink_to(temporary)

    def link(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "link", link)

    with pytest.raises(OSError, match="No space left"):
        link_once(temporary, path)
    assert not path.exists()


def test_a_rename_whose_answer_was_lost_counts_and_no_other(tmp_path, monkeypatch):
    rename = Path.rename

    def rename_twice(path, target):
        rename(path, target)
        rename(path, target)

    monkeypatch.setattr(Path, "rename", rename_twice)
    first, target = tmp_path / "first", tmp_path / "target"
    first.mkdir()

    rename_answered(first, target)

    assert target.is_dir()
    other = tmp_path / "other"
    other.mkdir()
    monkeypatch.setattr(Path, "rename", lambda path, _: (path.rmdir(), rename(path, tmp_path / "elsewhere")))
    with pytest.raises(FileNotFoundError):
        rename_answered(other, target)


def test_any_other_trouble_with_a_link_is_told(tmp_path):
    (tmp_path / "temporary").touch()

    with pytest.raises(FileNotFoundError):
        link_once(tmp_path / "temporary", tmp_path / "no folder" / "file")


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_mode_is_set_whatever_the_umask(mode, tmp_path):
    before = os.umask(0o077)
    try:
        replace_durably(tmp_path / "file", b"data", mode=mode)
    finally:
        os.umask(before)

    assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_a_file_that_is_written_in_pieces_replaces_the_old_one_only_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def write_half():
        with replaced_durably(path) as file:
            file.write(b"ne")
            raise OSError(errno.ENOSPC, "no space left")

    with pytest.raises(OSError, match="no space left"):
        write_half()
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"old")]

    with replaced_durably(path) as file:
        file.write(b"ne")
        file.write(b"w")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("file", b"new")]


def test_a_folder_replaces_the_old_one_only_when_it_is_whole(tmp_path):
    output = tmp_path / "output"
    output.mkdir()
    (output / "old").touch()

    def fill(name, error=None):
        with replaced_folder(output) as staging:
            (staging / name).touch()
            if error:
                raise error

    with pytest.raises(KeyError):
        fill("half", KeyError())
    assert [path.name for path in tmp_path.rglob("*")] == ["output", "old"]

    fill("new")
    assert [path.name for path in tmp_path.rglob("*")] == ["output", "new"]
    assert output.stat().st_mode & 0o777 == 0o755


def test_an_output_is_published_whole_or_not_at_all_and_never_over_another(tmp_path):
    def publish(name, error=None):
        with published_output(tmp_path / "new" / name) as written:
            written.write_bytes(b"data")
            if error:
                raise error

    with pytest.raises(KeyError):
        publish("output", KeyError())
    assert list((tmp_path / "new").iterdir()) == []

    publish("output")
    assert (tmp_path / "new" / "output").read_bytes() == b"data"
    with pytest.raises(ModelingError, match="output exists; name one that does not"):
        publish("output")


@dataclass(frozen=True, slots=True)
class Inner:
    sizes: tuple[Number, ...]
    wide: bool = False

    __pydantic_config__ = STRICT


@dataclass(frozen=True, slots=True)
class Outer:
    inner: Inner
    place: PathText = Path("here")
    facts: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__ = STRICT

    def __post_init__(self):
        if "odd" in self.facts:
            raise DataError(f"facts must be even, not {self.facts}")


def test_json_becomes_a_dataclass_and_whole_numbers_stay_whole():
    value = {"inner": {"sizes": [1, 2.5], "wide": True}, "place": r"caf\xe9", "facts": {"list": [1]}}

    made = validated(Outer, value, "it")

    assert made == Outer(Inner((1, 2.5), True), Path(os.fsdecode(b"caf\xe9")), {"list": [1]})
    assert [type(size) for size in made.inner.sizes] == [int, float]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inner": {"sizes": [True], "wide": False}}, "inner.sizes.0: Input should be a valid number, not True"),
        ({"inner": {"sizes": [1e999], "wide": False}}, "inner.sizes.0: Input should be a finite number, not inf"),
        ({"inner": {"sizes": [], "wide": 1}}, "inner.wide: Input should be a valid boolean, not 1"),
        ({"inner": {"sizes": []}}, "inner.wide: the key is missing"),
        ({"inner": {"wide": True}}, "inner.sizes: the key is missing"),
        ({"inner": {"sizes": [], "wide": True, "x": 0}}, "inner.x: the key is unknown"),
        ({"inner": [0] * 1000}, "inner: Input should be an object, not [0, 0, 0, 0, 0, 0, ...]"),
        ({"place": 3}, "place: Input should be a valid string, not 3"),
        ({"facts": {"odd": 1}}, "facts must be even, not {'odd': 1}"),
    ],
)
def test_json_that_does_not_fit_is_refused_in_one_line(change, told):
    value = {"inner": {"sizes": [1], "wide": True}, "place": "here", "facts": {}}

    with pytest.raises(DataError, match=f"^the file: {re.escape(told)}$"):
        validated(Outer, value | change, "the file", error=DataError)


def test_keys_with_a_default_may_be_left_out_where_the_caller_says_so():
    assert validated(Outer, {"inner": {"sizes": []}}, "it", whole=False) == Outer(Inner(()))


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(DataError, match=r"^the file: not JSON"):
        decode_json(data, "the file", error=DataError)


def test_what_a_link_names_is_replaced_and_the_link_stays(tmp_path):
    link, folder_link = tmp_path / "link.json", tmp_path / "link"
    (tmp_path / "real.json").write_bytes(b"old")
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "old").touch()
    link.symlink_to("real.json")
    folder_link.symlink_to("real")

    replace_durably(link, b"new")
    with replaced_folder(folder_link) as staging:
        (staging / "new").touch()

    assert (link.is_symlink(), folder_link.is_symlink()) == (True, True)
    assert (tmp_path / "real.json").read_bytes() == b"new"
    assert [path.name for path in (tmp_path / "real").iterdir()] == ["new"]


def test_an_output_that_is_a_link_to_nothing_appears_where_it_leads(tmp_path):
    (tmp_path / "link").symlink_to("real")

    with published_output(tmp_path / "link") as written:
        written.write_bytes(b"whole")

    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"whole"


def test_a_link_that_leads_back_to_itself_is_told(tmp_path):
    (tmp_path / "link").symlink_to("link")

    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        replace_durably(tmp_path / "link", b"lost")
