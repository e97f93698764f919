"""The paths of each kind of source, their order, and the counts of files left out."""

import errno
import io
import itertools
import json
import os
import re
import subprocess
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import pytest

from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.jobs.rows import FORMATS, Row
from orchestrator.jobs.skipped import describe_skipped
from orchestrator.jobs.sources import finds, open_source
from orchestrator.jobs.walk import SourceOptions
from tests.support.fakes import fake_rows

MANIFEST = FORMATS["csv"]


def make(folder: Path, *names: str) -> Path:
    """Empty files below a folder; a source never opens an image."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def read(text: object, *, stdin: bytes | None = None, **options) -> tuple[list[str], Counter[str]]:
    """All paths of a source, and what it left out."""
    source = open_source(str(text), SourceOptions(**options), stdin=None if stdin is None else io.BytesIO(stdin))
    return list(source.paths), source.skipped


class SlowPipe(io.RawIOBase):
    """A pipe whose writer pauses after each of `chunks`, and counts what was read."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = list(chunks)
        self.num_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self._chunks:
            return 0
        chunk = self._chunks.pop(0)
        assert len(chunk) <= len(buffer)
        buffer[: len(chunk)] = chunk
        self.num_read += 1
        return len(chunk)


DEPTH = 1200


@pytest.fixture
def deep_folder(tmp_path: Path) -> Iterator[Path]:
    """DEPTH folders, each in the one before, and an image; removed again, as pytest cannot remove them."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(DEPTH):
        os.mkdir("d", dir_fd=here)
        here, above = os.open("d", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    yield tmp_path
    subprocess.run(["rm", "-r", str(tmp_path / "d")], check=True)


# Folders


def test_the_order_of_a_folder_depends_on_names_alone(tmp_path):
    names = ["b.png", "a/z.png", "a/10.png", "a/9.png", "c/d/e.jpg", "B.png", "a.png", "é.png"]
    first, second = make(tmp_path / "1", *names), make(tmp_path / "2", *reversed(names))

    listed, skipped = read(first)

    assert listed == ["B.png", "a/10.png", "a/9.png", "a/z.png", "a.png", "b.png", "c/d/e.jpg", "é.png"]
    assert read(second)[0] == listed
    assert skipped == {}


def test_without_recursion_subfolders_are_counted_and_not_entered(tmp_path):
    make(tmp_path, "a.png", "in/b.png", "in/deeper/c.png", "other/d.png")

    assert read(tmp_path, recursive=False) == (["a.png"], {"subfolder": 2})


def test_hidden_and_non_image_files_are_counted_by_reason(tmp_path):
    make(tmp_path, "a.JPG", ".b.png", ".git/c.png", "notes.txt", "more.TXT", "README", "sub/.d.png", "sub/e.pdf")

    listed, skipped = read(tmp_path)

    assert listed == ["a.JPG"]
    assert skipped == {"hidden": 2, "hidden folder": 1, ".txt": 2, "no extension": 1, ".pdf": 1}


def test_what_systems_leave_behind_is_counted_in_folders_and_globs_and_kept_in_lists(tmp_path):
    junk = ["@eaDir/a.png", "$RECYCLE.BIN/S-1/b.png", "lost+found/c.png", "__MACOSX/d.png", "._a.png", "x/@eaDir/e.png"]
    make(tmp_path, "a.png", "x/b.png", *junk)
    (tmp_path / "list.txt").write_text("@eaDir/a.png\n")

    assert read(tmp_path) == (["a.png", "x/b.png"], {"hidden": 1, "system folder": 5, ".txt": 1})
    assert read(f"{tmp_path}/**/*.png") == (["a.png", "x/b.png"], {"hidden": 1, "system folder": 5})
    assert read(f"{tmp_path}/*.png") == (["a.png"], {"hidden": 1})
    assert read(tmp_path / "list.txt")[0] == ["@eaDir/a.png"]
    assert read(tmp_path / "@eaDir")[0] == ["a.png"]


def test_an_image_that_cannot_be_read_here_is_listed_all_the_same(tmp_path):
    make(tmp_path, "a.heic", "b.psd", "c.svg", "d.CR2")

    assert read(tmp_path) == (["a.heic", "b.psd", "c.svg", "d.CR2"], {})


def test_all_files_means_every_file_that_is_not_hidden(tmp_path):
    make(tmp_path, "a.png", "b.txt", "c", ".d.png")

    assert read(tmp_path, all_files=True) == (["a.png", "b.txt", "c"], {"hidden": 1})


def test_symlinks_to_files_are_listed_wherever_they_lead(tmp_path):
    """Links that lead outside become rows: the worker answers them with an error."""
    source, outside = make(tmp_path / "in", "a.png"), make(tmp_path / "out", "b.png")
    (source / "inside.png").symlink_to("a.png")
    (source / "outside.png").symlink_to(outside / "b.png")
    (source / "broken.png").symlink_to("nowhere.png")

    assert read(source) == (["a.png", "broken.png", "inside.png", "outside.png"], {})


def test_a_linked_folder_is_counted_inside_the_source_and_a_row_outside(tmp_path):
    source, outside = make(tmp_path / "in", "real/a.png"), make(tmp_path / "out", "b.png")
    (source / "again").symlink_to("real")
    (source / "away").symlink_to(outside)
    (source / "up").symlink_to("..")

    assert read(source) == (["away", "real/a.png", "up"], {"link to a folder of the source": 1})


def test_a_folder_whose_name_begins_with_the_sources_is_outside_it(tmp_path):
    source, outside = make(tmp_path / "in", "a.png"), make(tmp_path / "inner", "b.png")
    (source / "link").symlink_to(outside)

    assert read(source) == (["a.png", "link"], {})


def test_linked_folders_are_entered_when_links_are_followed(tmp_path):
    source, outside = make(tmp_path / "in", "real/a.png"), make(tmp_path / "out", "b.png")
    (source / "again").symlink_to("real")
    (source / "away").symlink_to(outside)

    assert read(source, follow_symlinks=True) == (["again/a.png", "away/b.png", "real/a.png"], {})


@pytest.mark.timeout(20)
def test_circular_links_are_counted_and_end(tmp_path):
    source = make(tmp_path / "in", "sub/a.png")
    (source / "sub" / "self").symlink_to(".")
    (source / "sub" / "up").symlink_to("..")
    (source / "loop").symlink_to("loop")

    listed, skipped = read(source, follow_symlinks=True)

    assert listed == ["sub/a.png"]
    assert skipped == {"circular link": 2, "no extension": 1}


def test_a_circle_by_way_of_another_folder_ends_too(tmp_path):
    source, outside = make(tmp_path / "in", "a.png"), make(tmp_path / "out", "b.png")
    (source / "away").symlink_to(outside)
    (outside / "back").symlink_to(source)

    assert read(source, follow_symlinks=True) == (["a.png", "away/b.png"], {"circular link": 1})


@pytest.mark.parametrize("follow", [False, True])
def test_without_recursion_linked_folders_are_counted_like_others(tmp_path, follow):
    source, outside = make(tmp_path / "in", "a.png"), make(tmp_path / "out", "b.png")
    (source / "away").symlink_to(outside)

    assert read(source, recursive=False, follow_symlinks=follow) == (["a.png"], {"subfolder": 1})


def refuse_to_list(monkeypatch, name, error):
    """Folders of that name cannot be listed; root may read everything, so a folder's mode would not do here."""
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith(name):
            raise OSError(error, os.strerror(error), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


@pytest.mark.parametrize("error", [errno.EACCES, errno.ENOENT])
def test_an_unreadable_folder_becomes_a_row_and_its_neighbours_are_listed(error, tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "locked/2.png", "z/3.png")
    refuse_to_list(monkeypatch, "locked", error)

    assert read(tmp_path) == (["a/1.png", "locked", "z/3.png"], {})
    with pytest.raises(UsageError, match=r"cannot list '.*locked': "):
        read(tmp_path / "locked")


@pytest.mark.parametrize("error", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENOMEM])
def test_trouble_of_the_storage_or_the_machine_ends_the_listing(error, tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "b/2.png")
    refuse_to_list(monkeypatch, "b", error)

    with pytest.raises(UsageError, match=r"cannot list '.*/b': "):
        read(tmp_path)


def test_folders_may_be_nested_deeper_than_python_recurses(deep_folder):
    assert read(deep_folder) == (["d/" * DEPTH + "x.png"], {})


def test_names_that_are_not_utf8_come_as_the_system_gives_them(tmp_path):
    name = os.fsdecode(b"latin\xe9.png")
    make(tmp_path, name, "new\nline.png")

    assert read(tmp_path)[0] == [name, "new\nline.png"]


def test_the_operators_name_for_the_root_is_kept_links_and_all(tmp_path, monkeypatch):
    make(tmp_path / "real", "a.png")
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)

    source = open_source("./link/", SourceOptions())

    assert (source.text, source.root, list(source.paths)) == ("./link/", str(tmp_path / "link"), ["a.png"])


def test_two_dots_behind_a_link_mean_what_the_system_means(tmp_path, monkeypatch):
    make(tmp_path / "far" / "images", "right.png")
    make(tmp_path / "images", "wrong.png")
    make(tmp_path / "far" / "real")
    (tmp_path / "far" / "real").mkdir()
    (tmp_path / "link").symlink_to("far/real")
    monkeypatch.chdir(tmp_path)

    source = open_source("link/../images", SourceOptions())

    assert (source.root, list(source.paths)) == (str(tmp_path / "far" / "images"), ["right.png"])


def test_a_folder_yields_before_the_next_one_is_looked_at(tmp_path, monkeypatch):
    make(tmp_path, *(f"{index}/a.png" for index in range(5)))
    looked_at: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked_at.append(str(path)) or scandir(path))

    paths = open_source(str(tmp_path), SourceOptions()).paths

    assert next(paths) == "0/a.png"
    assert looked_at == [str(tmp_path), str(tmp_path / "0")]


def test_peeking_loses_no_path(tmp_path):
    source = open_source(str(make(tmp_path, "a.png", "b.png")), SourceOptions())

    assert source.peek() == ["a.png"]
    assert source.peek(5) == ["a.png", "b.png"]
    assert list(source.paths) == ["a.png", "b.png"]
    assert not source.peek()


# Single files


def test_one_image_is_a_source_of_its_own(tmp_path):
    make(tmp_path, "a.png", "b.dat")

    source = open_source(str(tmp_path / "a.png"), SourceOptions())

    assert (source.root, list(source.paths)) == (str(tmp_path), ["a.png"])
    assert read(tmp_path / "b.dat", all_files=True)[0] == ["b.dat"]
    with pytest.raises(UsageError, match="neither a folder nor an image nor a list"):
        read(tmp_path / "b.dat")


def test_an_archive_is_to_be_unpacked_and_archives_in_a_folder_are_counted(tmp_path):
    make(tmp_path, "a.png", "photos.zip", "x/more.tar.gz", "x/b.png", "x/notes.gz")

    with pytest.raises(UsageError, match=r"'.*photos.zip' is an archive, which is not read; unpack it, and give the"):
        read(tmp_path / "photos.zip")
    paths, skipped = read(tmp_path)

    assert paths == ["a.png", "x/b.png"]
    assert skipped == {"archive": 2, ".gz": 1}
    assert describe_skipped(skipped) == "; left out: 1 .gz, 2 archive; unpack the archives if they hold images"


@pytest.mark.parametrize("name", ["nowhere", "nowhere.png", "nowhere.txt", "x" * 5000, ""])
def test_a_missing_source_is_not_found(tmp_path, name):
    with pytest.raises(NotFoundError, match="there is no"):
        read(f"{tmp_path}/deeper/{name}")


def test_a_source_in_another_unicode_form_is_not_found_and_the_form_is_told(tmp_path):
    make(tmp_path, normalize("NFD", "é/a.png"))

    with pytest.raises(
        NotFoundError, match=r"there is no '.*é', but '.*e\\u0301' in another Unicode form \(for '.*\\xe9'\)"
    ):
        read(tmp_path / "\u00e9")


def test_a_pipe_by_name_is_refused_immediately(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")

    with pytest.raises(UsageError, match="neither a folder nor an image nor a list"):
        read(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    ("text", "root", "walked", "found", "not_found"),
    [
        ("photos", "/x/photos", True, ["", "a.jpg", "new", "new/a.jpg"], []),
        ("../photos", "/x/photos", True, ["", "new"], []),
        (".", "/x/photos", True, ["", "new"], []),
        ("shots [1]", "/x/shots [1]", True, ["", "new"], []),
        ("named.csv", "/x/named.csv", True, ["", "new"], []),  # a folder
        ("photos", "/x/photos", False, ["", "new"], []),  # of a retry, which takes its paths from a manifest
        ("photos/**/*.jpg", "/x/photos", True, ["", "new", "new/new", "a.jpg"], []),
        ("photos/*.jpg", "/x/photos", True, ["", "a.jpg"], ["new", "sheet.html", "new/a.jpg"]),
        ("/disk*/in/*.jpg", "/", True, ["", "disk1", "disk1/in", "disk1/in/a.jpg"], ["home", "disk1/out", "srv/in"]),
        ("../photos/*", "/x/photos", True, ["", "new"], ["new/new"]),
        ("../photos/**/*.jpg", "/data/real", True, ["", "new", "new/a.jpg"], []),  # `photos` is a link
        ("-", "/", False, [], ["", "disk1", "disk1/a.jpg"]),
        ("lists/birds.csv", "/x/lists", False, [], ["", "new"]),
        ("photos/a.jpg", "/x/photos", False, [], ["", "a.html"]),
    ],
)
def test_where_a_source_would_find_something(text, root, walked, found, not_found):
    places = {place: tuple(filter(None, place.split("/"))) for place in (*found, *not_found)}

    assert [name for name, place in places.items() if finds(text, root, place, walked=walked)] == found


# Globs


GLOB_NAMES = ("a.jpg", "b.png", "x/c.jpg", "x/y/d.jpg", "x/y/e.png", "z/f1.jpg", "z/f2.jpg", "z/f3.jpg")


@pytest.mark.parametrize(
    ("pattern", "listed"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*/*.jpg", ["x/c.jpg", "z/f1.jpg", "z/f2.jpg", "z/f3.jpg"]),
        ("**/*.jpg", ["a.jpg", "x/c.jpg", "x/y/d.jpg", "z/f1.jpg", "z/f2.jpg", "z/f3.jpg"]),
        ("**/y/**", ["x/y/d.jpg", "x/y/e.png"]),
        ("x/**/*.png", ["x/y/e.png"]),
        ("**", sorted(GLOB_NAMES)),
        ("z/f[13].jpg", ["z/f1.jpg", "z/f3.jpg"]),
        ("z/f[!13].jpg", ["z/f2.jpg"]),
        ("?.png", ["b.png"]),
        ("[xz]/[cf]*", ["x/c.jpg", "z/f1.jpg", "z/f2.jpg", "z/f3.jpg"]),
    ],
)
def test_a_glob_lists_what_it_matches_and_nothing_else(tmp_path, pattern, listed):
    make(tmp_path, *GLOB_NAMES)

    source = open_source(f"{tmp_path}/{pattern}", SourceOptions())

    assert [f"{source.root}/{path}" for path in source.paths] == [f"{tmp_path}/{name}" for name in listed]
    assert source.skipped == {}


def test_a_globs_paths_are_relative_to_the_folder_before_its_first_star(tmp_path):
    make(tmp_path, *GLOB_NAMES)

    source = open_source(f"{tmp_path}/x/*/*.png", SourceOptions())

    assert (source.root, list(source.paths)) == (str(tmp_path / "x"), ["y/e.png"])


def test_a_glob_counts_only_what_it_matched_and_left_out(tmp_path):
    make(tmp_path, "a.jpg", "a.txt", "b.txt", "deep/c.txt")

    assert read(f"{tmp_path}/a*") == (["a.jpg"], {".txt": 1})


def test_a_glob_that_matches_nothing_has_no_paths(tmp_path):
    make(tmp_path, "a.jpg")

    assert read(f"{tmp_path}/*.png") == ([], {})
    with pytest.raises(NotFoundError, match=r"there is no folder '.*/nowhere' for the glob"):
        read(f"{tmp_path}/nowhere/*.png")


def test_a_glob_enters_no_folder_that_cannot_hold_a_match(tmp_path, monkeypatch):
    make(tmp_path, "2024/cam1/a.jpg", "2024/cam2/b.jpg", "2023/cam1/c.jpg", "2024/cam1/raw/d.jpg")
    looked_at: list[str] = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked_at.append(str(path)) or scandir(path))

    listed, _ = read(f"{tmp_path}/2024*/cam1/*.jpg")

    assert listed == ["2024/cam1/a.jpg"]
    assert looked_at == [str(tmp_path / part) for part in ("", "2024", "2024/cam1")]
    looked_at.clear()
    assert read(f"{tmp_path}/20*/*")[0] == []
    assert looked_at == [str(tmp_path / part) for part in ("", "2023", "2024")]


def test_leading_folders_that_exist_are_no_wildcards_and_those_after_them_are(tmp_path):
    make(tmp_path, "scan [2024]/a.png", "scan [2024]/in [x]/b.png", "scan 2/c.png", "scan [2024]/in x/d.png")

    assert read(f"{tmp_path}/scan [2024]/*.png")[0] == ["a.png"]
    assert read(f"{tmp_path}/scan [2024]/in [x]/*.png")[0] == ["b.png"]
    assert read(f"{tmp_path}/scan [2024]/*/*.png")[0] == ["in [x]/b.png", "in x/d.png"]
    assert read(f"{tmp_path}/scan [0-9]/*.png")[0] == ["scan 2/c.png"]
    assert read(f"{tmp_path}/*/in [x]/*.png")[0] == ["scan [2024]/in x/d.png"]
    assert read(f"{tmp_path}/*/in [[]x]/*.png")[0] == ["scan [2024]/in [x]/b.png"]


def test_a_glob_with_brackets_that_finds_nothing_says_how_to_write_a_bracket(tmp_path):
    make(tmp_path, "a.png")
    hint = "[ and ] are wildcards: write [[] for a [ in a name"

    assert hint in open_source(f"{tmp_path}/scan [2024]/*.png", SourceOptions()).hint
    assert open_source(f"{tmp_path}/*/*.png", SourceOptions()).hint == ""
    with pytest.raises(NotFoundError, match=re.escape(hint)):
        read(f"{tmp_path}/nowhere/[ab]/*.png")


def test_an_image_that_is_absent_from_a_folder_with_brackets_is_not_found(tmp_path):
    make(tmp_path, "scan [2024]/a.png")

    with pytest.raises(NotFoundError, match=r"there is no '.*b.png'"):
        read(f"{tmp_path}/scan [2024]/b.png")


def test_a_name_that_exists_is_no_glob_whatever_characters_it_has(tmp_path):
    make(tmp_path, "[1].png", "1.png", "a*b/c.png")

    assert read(tmp_path / "[1].png")[0] == ["[1].png"]
    assert read(tmp_path / "a*b")[0] == ["c.png"]


# Lists


@pytest.mark.parametrize(
    ("data", "listed"),
    [
        (b"a.png\nsub/b.png\n", ["a.png", "sub/b.png"]),
        (b"a.png\r\nsub/b.png\r\n", ["a.png", "sub/b.png"]),
        (b"\n\na.png\n\r\n\nb.png", ["a.png", "b.png"]),
        (b"\xef\xbb\xbfa.png\nb.png\n", ["a.png", "b.png"]),
        (b" a .png\n", [" a .png"]),
        (b"new\nline.png\0b.png\0", ["new\nline.png", "b.png"]),
        (b"new\nline.png\0", ["new\nline.png"]),
        (b"new\nline.png\0b.png\0c\nd.png\0", ["new\nline.png", "b.png", "c\nd.png"]),
        (b"b.png\0new\nline.png\0two\n\nlines.png\0", ["b.png", "new\nline.png", "two\n\nlines.png"]),
        (b"a.jpg\nb.jpg\nc\0.jpg\nd.jpg\n", ["a.jpg", "b.jpg", "c\0.jpg", "d.jpg"]),
        (b"a.jpg\nb\0.jpg\nc.jpg", ["a.jpg", "b\0.jpg", "c.jpg"]),
        (b"a\0b\0\0c\0d\0", ["a", "b", "c", "d"]),
        (b"carriage\r\0b.png", ["carriage\r", "b.png"]),
        (b"latin\xe9.png\n", ["latin\udce9.png"]),
        (b"no-image.txt\n.hidden\n../outside.png\n", ["no-image.txt", ".hidden", "../outside.png"]),
        (b"", []),
        (b"\n\r\n\n", []),
    ],
)
def test_a_text_list_holds_one_path_a_line_or_a_nul_byte(tmp_path, data, listed):
    (tmp_path / "list.txt").write_bytes(data)

    assert read(tmp_path / "list.txt") == (listed, {})
    assert read("-", stdin=data)[0] == listed
    if b"\0" in data and data.find(b"\0") > data.find(b"\n") >= 0 and data.endswith(b"\0"):
        with pytest.raises(
            UsageError, match=r"\(`find -print0`\), in a file instead of a pipe if the first name holds"
        ):
            slowly(data)  # the first line was a path already
    else:
        assert slowly(data) == listed


def slowly(data: bytes) -> list[str]:
    """The paths of a pipe whose every byte comes alone."""
    pipe = SlowPipe(*(data[place : place + 1] for place in range(len(data))))
    return list(open_source("-", SourceOptions(), stdin=io.BufferedReader(pipe)).paths)


@pytest.mark.parametrize(
    "data",
    [
        b"a\0.jpg\nb.jpg\nc.jpg\n",  # damaged in its first line
        b"a\0.jpg\nb.jpg\nc\0.jpg\nd.jpg\n",
        b"a.jpg\nb\0\0.jpg\nc.jpg\n",
        b"a.jpg\nb\0.jpg",
        b"a.jpg\nb.jpg\nc.jpg\nd\0.jpg",
        b"new\nline.png\0b.png\0cut of",
        b"new\nline.png\0cut of",
        b"a.jpg\nb.jpg\n\0",
        b"a.jpg\nb.jpg\n\0\0\0\0",  # what a crash may leave of a file
        b"a.jpg\n\0\0\0\0",
        b"two\n\nlines.png\0b.png\0",  # of find -print0, its first name with two ends of lines
    ],
)
def test_a_list_that_may_be_one_of_lines_or_of_nul_bytes_is_refused_and_its_paths_are_not_joined(tmp_path, data):
    (tmp_path / "list.txt").write_bytes(data)

    with pytest.raises(UsageError, match="holds ends of lines and NUL bytes, and nobody can tell which of them end"):
        read(tmp_path / "list.txt")
    with pytest.raises(UsageError, match="holds ends of lines and NUL bytes, and nobody can tell which of them end"):
        slowly(data)


def test_one_nul_byte_far_in_a_list_joins_no_lines():
    names = [f"{index:07d}.jpg" for index in range(200_000)]
    names[100_000] = "\0.jpg"

    assert read("-", stdin="\n".join(names).encode())[0] == names


def test_a_list_longer_than_what_is_read_at_once_comes_whole(tmp_path):
    names = [f"{index:07d}{'x' * (index % 97)}.png" for index in range(40_000)]

    assert read("-", stdin="\n".join(names).encode())[0] == names
    assert read("-", stdin="\0".join(names).encode())[0] == names


def test_a_lists_root_is_its_folder_and_standard_inputs_the_present_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "lists/list.txt", "images/a.png")
    (tmp_path / "lists" / "list.txt").write_text("a.png\n")

    assert open_source("lists/list.txt", SourceOptions()).root == str(tmp_path / "lists")
    assert open_source("-", SourceOptions(), stdin=io.BytesIO(b"a.png\n")).root == str(tmp_path)
    assert open_source("lists/list.txt", SourceOptions(root=Path("images"))).root == str(tmp_path / "images")
    with pytest.raises(NotFoundError, match=r"--root '.*/nowhere' is not a folder"):
        read("lists/list.txt", root=Path("nowhere"))


def test_a_root_without_a_list_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="--root '/tmp' needs a list"):
        read(tmp_path, root=Path("/tmp"))


def test_absolute_paths_below_the_root_become_relative_and_others_stay(tmp_path):
    data = f"{tmp_path}/a.png\n{tmp_path}/sub/b.png\n{tmp_path}er/c.png\n/etc/d.png\n".encode()

    listed, _ = read("-", stdin=data, root=tmp_path)

    assert listed == ["a.png", "sub/b.png", f"{tmp_path}er/c.png", "/etc/d.png"]


def test_a_stream_that_begins_outside_its_root_is_refused_with_advice():
    with pytest.raises(
        UsageError, match=r"first path '/scans/a.png' is outside its root .*; choose another with --root"
    ):
        read("-", stdin=b"/scans/a.png\n")


@pytest.mark.parametrize("column", ["path", "file", "filename", "image", "Path", " FILE ", "File Name", "image-path"])
def test_a_csv_list_is_read_by_its_path_column(tmp_path, column):
    (tmp_path / "list.csv").write_text(f'label,{column}\ncat,a.png\ndog,"b,c.png"\n\nbird,"new\nline.png"\n,,,\n')

    assert read(tmp_path / "list.csv") == (["a.png", "b,c.png", "new\nline.png"], {})


def test_two_columns_that_may_be_the_path_are_refused_by_name(tmp_path):
    (tmp_path / "list.csv").write_text("image,file,label\n1,2,3\n")

    with pytest.raises(UsageError, match=r"line 1: the columns 'file' and 'image' may each be the path; keep one"):
        read(tmp_path / "list.csv")


@pytest.mark.parametrize("row", ["none,", "short"])
def test_a_row_without_a_path_ends_the_list_with_its_line(tmp_path, row):
    (tmp_path / "list.csv").write_text(f"label,path\ncat,a.png\n{row}\n")

    paths = open_source(str(tmp_path / "list.csv"), SourceOptions()).paths

    assert next(paths) == "a.png"
    with pytest.raises(UsageError, match=r"list.csv, line 3: no path"):
        next(paths)


def test_a_csv_from_a_spreadsheet_may_have_a_mark_and_line_ends_of_its_own(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbfpath,label\r\na.png,1\r\nlatin\xe9.png,2\r\n")

    assert read(tmp_path / "list.csv")[0] == ["a.png", "latin\udce9.png"]


def test_a_csv_without_a_path_column_is_refused_with_what_it_has(tmp_path):
    (tmp_path / "list.csv").write_text("a.png\nb.png\n")

    with pytest.raises(UsageError, match=r"line 1: no column for paths \(path, file, filename, ...\) among 'a.png'"):
        read(tmp_path / "list.csv")


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_a_list_in_utf16_is_read_and_without_its_mark_refused(tmp_path, name):
    text = "path\nä.png\n\U0001f426.png\n"
    (tmp_path / name).write_bytes(text.encode("utf-16"))

    assert read(tmp_path / name)[0][-2:] == ["ä.png", "\U0001f426.png"]
    (tmp_path / name).write_bytes(text.encode("utf-16-le"))
    with pytest.raises(UsageError, match="is UTF-16 without a byte-order mark; save it as UTF-8"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    ("start", "path"),
    [
        (b"a\n", "a"),
        (b"ab\0", "ab"),
        (b"\xef\xbb\xbfa\n", "a"),
        (b"a.png\nnew", "a.png"),
        (b"\xff.png\n", "\udcff.png"),
    ],
)
def test_a_pipes_first_path_waits_for_no_other(start, path):
    pipe = SlowPipe(start, b"b.png\n")

    assert next(open_source("-", SourceOptions(), stdin=io.BufferedReader(pipe)).paths) == path
    assert pipe.num_read == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_standard_input_in_utf16_without_its_mark_is_refused_however_slow_it_is(encoding):
    with pytest.raises(UsageError, match="is UTF-16 without a byte-order mark; save it as UTF-8"):
        slowly("path\nä.png\n".encode(encoding))


def test_standard_input_in_utf16_is_read():
    data = "a.png\r\nä.png\r\n".encode("utf-16")

    assert read("-", stdin=data)[0] == slowly(data) == ["a.png", "ä.png"]


def test_garbage_named_as_a_list_is_refused_before_it_fills_the_memory(tmp_path):
    with (tmp_path / "rubbish.txt").open("wb") as file:
        file.truncate(0)
        for _ in range(40):
            file.write(b"x" * (1 << 18))

    with pytest.raises(UsageError, match="is not a list of paths"):
        read(tmp_path / "rubbish.txt")
    (tmp_path / "rubbish.txt").write_bytes(b"a.png\n" + b"x" * (10 << 20))
    with pytest.raises(UsageError, match="is not a list of paths: 2,"):
        open_source(str(tmp_path / "rubbish.txt"), SourceOptions())


def test_a_manifest_is_a_list_whose_names_come_back_as_they_were(tmp_path):
    names = [
        "=1+2.png",
        "'quote.png",
        "plain.png",
        "latin\udce9.png",
        "back\\x41slash.png",
        "new\nline.png",
        "@a,b.png",
    ]
    rows = [Row(name, row.prediction) for name, row in zip(names, fake_rows(names), strict=True)]
    (tmp_path / "out.csv").write_bytes(MANIFEST.header({}) + MANIFEST.encode(rows) + MANIFEST.footer())

    assert read(tmp_path / "out.csv")[0] == names


@pytest.mark.parametrize("row_format", FORMATS)
def test_a_manifest_with_a_column_more_is_one_and_its_summarys_root_counts(tmp_path, row_format):
    names = ["=1.png", "latin\udce9.png", "a;b.png"]
    rows = [Row(name, row.prediction) for name, row in zip(names, fake_rows(names), strict=True)]
    encoder = FORMATS[row_format]
    text = (encoder.header({"version": 1}) + encoder.encode(rows) + encoder.footer()).decode()
    text = text.replace('{"path"', '{"corrected_label": null, "path"')
    if row_format == "csv":
        text = "".join(f"{line},note\n" for line in text.splitlines())
    (tmp_path / f"out.{row_format}").write_text(text)
    (tmp_path / f"out.{row_format}.summary.json").write_text(json.dumps({"root": str(tmp_path / "images")}))

    with pytest.raises(NotFoundError, match=r"'.*images', the root that 'out.* names, is not a folder; choose one"):
        read(tmp_path / f"out.{row_format}")
    (tmp_path / "images").mkdir()
    source = open_source(str(tmp_path / f"out.{row_format}"), SourceOptions())

    assert (source.root, list(source.paths)) == (str(tmp_path / "images"), names)
    assert open_source(str(tmp_path / f"out.{row_format}"), SourceOptions(root=tmp_path)).root == str(tmp_path)


def test_only_a_manifests_names_are_taken_back(tmp_path):
    (tmp_path / "list.csv").write_text("path,label\n'quoted.png,1\nback\\x41slash.png,2\n")

    assert read(tmp_path / "list.csv")[0] == ["'quoted.png", "back\\x41slash.png"]


# Reading while the source is being written


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_paths_of_a_slow_writer_are_not_held_back_until_it_ends(separator):
    first = separator.join(b"%05d.png" % index for index in range(500)) + separator
    pipe = SlowPipe(first, b"late.png" + separator, b"last.png" + separator)
    paths = open_source("-", SourceOptions(), stdin=io.BufferedReader(pipe, 1 << 16)).paths

    assert list(itertools.islice(paths, 400))[-1] == "00399.png"
    assert pipe.num_read == 1
    assert list(paths)[-2:] == ["late.png", "last.png"]


LONG_LISTS = {
    "list.txt": (b"", b"%07d.png\n", b""),
    "list.csv": (b"path\n", b"%07d.png\n", b""),
    "list.jsonl": (b"", b'{"path": "%07d.png"}\n', b""),
    "list.json": (b'[{"path": "first.png"}', b',{"path": "%07d.png"}', b"]"),
}


@pytest.mark.parametrize("name", LONG_LISTS)
def test_a_long_list_is_read_in_flat_memory(tmp_path, name):
    num_paths = 100_000
    begin, row, end = LONG_LISTS[name]
    path = tmp_path / name
    path.write_bytes(begin + b"".join(row % index for index in range(num_paths)) + end)
    num_paths += begin.count(b"{")
    source = open_source(str(path), SourceOptions())
    assert source.peek()

    tracemalloc.start()
    try:
        assert sum(1 for _ in source.paths) == num_paths
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 6 << 20  # a chunk and its paths; all would be 7 MiB more
