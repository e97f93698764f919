import errno
import os
import threading
from itertools import count, islice

import pytest

from modeling.errors import ImageError
from modeling.images import loader
from modeling.images.loader import load_ahead, load_batches_ahead, read_image_file


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "large.png").write_bytes(bytes(11))
    (tmp_path / "folder.png").mkdir()

    codes = {}
    for name in ("pipe.png", "large.png", "folder.png", "absent.png"):
        with pytest.raises(ImageError) as caught:
            read_image_file(tmp_path / name, max_bytes=10)
        codes[name] = caught.value.code

    assert codes == {
        "pipe.png": "not_a_file",
        "large.png": "too_large",
        "folder.png": "not_a_file",
        "absent.png": "missing",
    }


def test_a_link_to_a_file_that_is_not_there_is_told_as_such(tmp_path):
    (tmp_path / "a.png").symlink_to("../blobs/\udce9")

    with pytest.raises(ImageError, match=r"a link to '\.\./blobs/\\\\xe9', which is not there") as caught:
        read_image_file(tmp_path / "a.png")
    assert caught.value.code == "missing"


class Failing:
    """Stands for os.open: some files give an error, for ever or some times."""

    def __init__(self, monkeypatch, number, wanted, times=10**9):
        self._open, self._number, self._wanted, self._left = os.open, number, wanted, times
        monkeypatch.setattr(os, "open", self)
        monkeypatch.setattr(loader, "PAUSES_S", (0.0, 0.0))

    def __call__(self, path, *args, **options):
        if self._left and str(path).endswith(self._wanted):
            self._left -= 1
            raise OSError(self._number, os.strerror(self._number), path)
        return self._open(path, *args, **options)


@pytest.fixture
def two_files(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize("number", [errno.EIO, errno.EMFILE])
def test_an_error_that_passes_costs_nothing(two_files, monkeypatch, number):
    Failing(monkeypatch, number, "a.png", times=2)

    assert read_image_file(two_files / "a.png") == b"a.png"


def test_a_file_that_the_storage_cannot_read_is_unreadable_if_its_neighbour_can_be_read(two_files, monkeypatch):
    Failing(monkeypatch, errno.EIO, "a.png")

    with pytest.raises(ImageError, match="Input/output error"):
        read_image_file(two_files / "a.png")


def test_a_storage_that_is_away_and_a_process_without_descriptors_are_no_errors_of_an_image(two_files, monkeypatch):
    (two_files / "b.png").unlink()
    for number in (errno.EIO, errno.EMFILE):
        with monkeypatch.context() as patch:
            Failing(patch, number, "a.png")
            with pytest.raises(OSError, match=os.strerror(number)):
                read_image_file(two_files / "a.png")


def test_results_come_in_order_whichever_thread_is_faster():
    second_done = threading.Event()

    def call(number: int) -> int:
        if number == 0:
            assert second_done.wait(30)
        second_done.set()
        return number * 10

    assert list(load_ahead(range(5), call, num_ahead=4, num_threads=2)) == [0, 10, 20, 30, 40]


def test_batches_keep_their_sizes_and_may_be_empty():
    batches = load_batches_ahead([[1, 2], [], [3]], str, num_ahead=1, num_threads=2)

    assert list(batches) == [["1", "2"], [], ["3"]]


def test_no_more_items_are_pulled_than_may_wait():
    pulled = []

    def items():
        for number in count():
            pulled.append(number)
            yield number

    results = load_ahead(items(), abs, num_ahead=3, num_threads=2)
    taken = list(islice(results, 2))
    results.close()

    assert (taken, pulled) == ([0, 1], [0, 1, 2, 3, 4])


def test_an_error_comes_in_its_place_and_ends_the_threads():
    def call(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        return number

    taken = []
    with pytest.raises(ValueError, match="two"):
        taken.extend(load_ahead(range(100), call, num_ahead=8, num_threads=2))

    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
