import errno
import gc
import hashlib
import os
import socket
from unicodedata import normalize

import pytest

from modeling.data.lists.faults import PathRoot
from modeling.errors import ImageError
from modeling.names import path_to_text
from workers.classify import read
from workers.classify.read import ImageReader, read_noted


@pytest.fixture
def root(tmp_path):
    """A source folder with a file, a subfolder, and files beside it."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.jpg").write_bytes(b"image a")
    (root / "sub" / "b.jpg").write_bytes(b"image b")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.jpg").write_bytes(b"secret")
    (tmp_path / "root-twin.jpg").write_bytes(b"secret")
    return root


def reader(root, *, follow=False, max_file_bytes=1000):
    return ImageReader(path_to_text(str(root)), follow_symlinks=follow, max_file_bytes=max_file_bytes)


def code(root, path, **options):
    """The error code that reading `path` gives."""
    with pytest.raises(ImageError) as failed:
        reader(root, **options).read(path)
    return failed.value.code


def test_files_below_the_root_are_read(root):
    assert reader(root).source("a.jpg")() == b"image a"
    assert reader(root).read("sub/b.jpg") == b"image b"
    assert reader(root).read("sub/../a.jpg") == b"image a"


@pytest.mark.parametrize("checksum", [False, True])
def test_size_and_time_are_those_of_the_file_that_was_read_also_behind_a_link(root, checksum):
    (root / "link.jpg").symlink_to("a.jpg")
    os.utime(root / "a.jpg", ns=(1, 1_234_567_890_123_456_789))
    careful = ImageReader(str(root), follow_symlinks=False, max_file_bytes=1000, checksum=checksum)

    for path in ("a.jpg", "link.jpg"):
        data, (size, mtime_ns, sha256) = careful.read_state(path)
        assert (data, size, mtime_ns) == (b"image a", 7, 1_234_567_890_123_456_789)
        assert sha256 == (hashlib.sha256(b"image a").hexdigest() if checksum else None)


def test_an_image_that_cannot_be_read_leaves_no_size_and_no_time(root):
    as_read: list = [None, None]
    careful = reader(root)

    assert read_noted(careful, "a.jpg", as_read, 1) == b"image a"
    with pytest.raises(ImageError):
        read_noted(careful, "gone.jpg", as_read, 0)

    assert as_read == [None, (7, (root / "a.jpg").stat().st_mtime_ns, None)]


@pytest.mark.parametrize("follow", [False, True])
def test_links_inside_the_root_are_read(root, follow):
    (root / "link.jpg").symlink_to("sub/b.jpg")
    (root / "absolute.jpg").symlink_to(root / "a.jpg")
    (root / "folder").symlink_to("sub")

    for path, data in [("link.jpg", b"image b"), ("absolute.jpg", b"image a"), ("folder/b.jpg", b"image b")]:
        assert reader(root, follow=follow).read(path) == data


def test_links_that_leave_the_root_are_errors_unless_they_are_followed(root):
    (root / "link.jpg").symlink_to("../outside/secret.jpg")
    (root / "chain.jpg").symlink_to("link.jpg")
    (root / "folder").symlink_to("../outside")
    (root / "twin.jpg").symlink_to("../root-twin.jpg")

    for path in ("link.jpg", "chain.jpg", "folder/secret.jpg", "twin.jpg"):
        assert code(root, path) == "outside_root"
        assert reader(root, follow=True).read(path) == b"secret"


@pytest.mark.parametrize("path", ["../outside/secret.jpg", "sub/../../outside/secret.jpg", "/etc/passwd", "../root"])
def test_paths_that_leave_the_root_are_errors(root, path):
    assert code(root, path) == "outside_root"


def test_an_absolute_path_below_the_root_is_read(root):
    assert reader(root).read(str(root / "a.jpg")) == b"image a"


def test_a_root_that_is_itself_a_link_is_no_way_out(root, tmp_path):
    (tmp_path / "alias").symlink_to(root)

    assert reader(tmp_path / "alias").read("sub/b.jpg") == b"image b"


def test_a_pipe_is_no_file_and_does_not_hang(root):
    os.mkfifo(root / "pipe.jpg")

    assert code(root, "pipe.jpg") == "not_a_file"


@pytest.mark.parametrize("path", ["sub", "", ".", "sub/"])
def test_a_folder_is_no_file(root, path):
    assert code(root, path) == "not_a_file"


def test_a_socket_is_no_file(root, monkeypatch):
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")

        assert code(root, "socket.jpg") == "not_a_file"


@pytest.mark.parametrize(
    "path", ["none.jpg", "none/a.jpg", "a.jpg/b.jpg", "nul\0.jpg", "nul\0/a.jpg", "x" * 300, "\ud800"]
)
@pytest.mark.parametrize("follow", [False, True])
def test_a_path_that_does_not_exist_is_missing(root, path, follow):
    assert code(root, path, follow=follow) == "missing"


@pytest.mark.parametrize("follow", [False, True])
def test_the_early_check_of_a_source_expects_the_codes_that_reading_gives(root, follow):
    (root / "link.jpg").symlink_to("../outside/secret.jpg")
    (root / "inside.jpg").symlink_to("a.jpg")
    (root / "dangling.jpg").symlink_to("gone.jpg")
    (root / "away.jpg").symlink_to("../gone.jpg")
    (root / "folder").symlink_to("../outside")
    (root / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(root / "pipe.jpg")
    expected = PathRoot(str(root), follow)

    for path in (
        "a.jpg", "sub/b.jpg", "sub/../a.jpg", "inside.jpg", "link.jpg", "dangling.jpg", "away.jpg", "folder",
        "folder/secret.jpg", "folder/gone.jpg", "../outside/secret.jpg", "../gone.jpg", "/etc/passwd", "/nowhere",
        str(root / "a.jpg"), "none.jpg", "a.jpg/b.jpg", "sub", "sub/", ".", "pipe.jpg", "nul\0.jpg", "x" * 300,
        "\ud800",
    ):  # fmt: skip
        try:
            reader(root, follow=follow).read(path)
            given = None
        except ImageError as err:
            given = err.code
        assert (path, expected.code(path)) == (path, given)
    assert expected.code("loop.jpg") == ""


def test_the_row_of_a_file_that_is_there_in_another_unicode_form_says_so(root):
    (root / normalize("NFD", "é.jpg")).write_bytes(b"image")

    with pytest.raises(ImageError) as failed:
        reader(root).read(normalize("NFC", "é.jpg"))

    assert failed.value.message == "there is no such file; one is there in another Unicode form (NFC or NFD)"


def test_a_link_to_nothing_is_missing(root):
    (root / "dangling.jpg").symlink_to("gone.jpg")

    assert code(root, "dangling.jpg") == "missing"


@pytest.mark.parametrize("follow", [False, True])
def test_a_link_to_itself_is_unreadable(root, follow):
    (root / "loop.jpg").symlink_to("loop.jpg")

    assert code(root, "loop.jpg", follow=follow) == "unreadable"


def test_an_empty_file_has_no_bytes(root):
    (root / "empty.jpg").touch()

    assert reader(root).read("empty.jpg") == b""


def test_a_file_larger_than_the_limit_is_refused_before_it_is_read(root):
    with (root / "large.jpg").open("wb") as file:
        file.truncate(1 << 40)
    (root / "just.jpg").write_bytes(b"x" * 1000)

    assert code(root, "large.jpg") == "too_large"
    assert len(reader(root).read("just.jpg")) == 1000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_an_error(root):
    (root / "a.jpg").chmod(0)

    assert code(root, "a.jpg") == "permission"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("follow", [False, True])
def test_a_file_that_the_system_refuses_to_open_is_an_error_also_for_root(root, monkeypatch, number, follow):
    whole = os.open

    def refuse(path, flags, *args, **options):
        if str(path).endswith("a.jpg"):
            raise PermissionError(number, os.strerror(number), path)
        return whole(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)

    assert code(root, "a.jpg", follow=follow) == "permission"
    assert reader(root, follow=follow).read("sub/b.jpg") == b"image b"


class Failing:
    """Stands for os.open: a.jpg gives an error some times."""

    def __init__(self, monkeypatch, number, times):
        self._open, self._number, self.left = os.open, number, times
        self.pauses = []
        monkeypatch.setattr(os, "open", self)
        monkeypatch.setattr(read.time, "sleep", self.pauses.append)

    def __call__(self, path, flags, *args, **options):
        if self.left and str(path).endswith("a.jpg"):
            self.left -= 1
            raise OSError(self._number, os.strerror(self._number), path)
        return self._open(path, flags, *args, **options)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EAGAIN])
def test_an_error_of_worker_or_storage_that_passes_costs_nothing(root, monkeypatch, number):
    failing = Failing(monkeypatch, number, times=3)

    assert reader(root).read("a.jpg") == b"image a"
    assert failing.pauses == [0.1, 0.3, 1.0]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_an_error_of_the_worker_that_stays_is_no_error_of_the_image(root, monkeypatch, number):
    Failing(monkeypatch, number, times=9)

    with pytest.raises(OSError, match=os.strerror(number)):
        reader(root).read("a.jpg")


def test_an_error_of_the_storage_that_stays_is_judged_by_whoever_knows_the_storage(root, monkeypatch):
    def judge():
        raise LookupError("the storage is away")

    Failing(monkeypatch, errno.EIO, times=4)
    assert code(root, "a.jpg") == "unreadable"

    Failing(monkeypatch, errno.EIO, times=4)
    judged = ImageReader(str(root), follow_symlinks=False, max_file_bytes=1000, on_storage_error=judge)
    with pytest.raises(LookupError):
        judged.read("a.jpg")


def test_an_error_of_the_image_is_not_tried_again(root, monkeypatch):
    failing = Failing(monkeypatch, errno.EACCES, times=2)

    assert code(root, "a.jpg") == "permission"
    assert (failing.left, failing.pauses) == (1, [])


def test_the_last_image_of_each_device_is_known(root):
    reading = reader(root)
    for path in ("a.jpg", "sub/b.jpg"):
        reading.read(path)

    assert reading.last_read == {root.stat().st_dev: "sub/b.jpg"}


def test_names_and_roots_of_any_bytes_are_read(tmp_path):
    root = tmp_path / os.fsdecode(b"caf\xe9 \\x41\n")
    root.mkdir()
    names = [os.fsdecode(name) for name in (b"\xff.jpg", b"new\nline.jpg", "🐦.jpg".encode(), b"\\xff.jpg", b" =1.jpg")]
    for name in names:
        (root / name).write_text(repr(name))

    assert [reader(root).read(name).decode() for name in names] == [repr(name) for name in names]


@pytest.mark.parametrize("path", ["a.jpg", "sub", "none.jpg", "pipe.jpg", "large.jpg"])
def test_no_file_is_left_open(root, path):
    os.mkfifo(root / "pipe.jpg")
    (root / "large.jpg").write_bytes(b"x" * 2000)
    gc.collect()  # what earlier tests left open is closed at any time
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        try:
            reader(root).read(path)
        except ImageError:
            continue

    assert len(os.listdir("/proc/self/fd")) <= before
