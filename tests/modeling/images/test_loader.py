import os
import threading
from itertools import count, islice

import pytest

from modeling.errors import ImageError
from modeling.images.loader import load_ahead, load_groups_ahead, read_image_file


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
        "pipe.png": "unreadable",
        "large.png": "too_large",
        "folder.png": "unreadable",
        "absent.png": "unreadable",
    }


def test_results_come_in_order_whichever_thread_is_faster():
    second_done = threading.Event()

    def call(number: int) -> int:
        if number == 0:
            assert second_done.wait(30)
        second_done.set()
        return number * 10

    assert list(load_ahead(range(5), call, num_ahead=4, num_threads=2)) == [0, 10, 20, 30, 40]


def test_groups_keep_their_sizes_and_may_be_empty():
    groups = load_groups_ahead([[1, 2], [], [3]], str, num_ahead=1, num_threads=2)

    assert list(groups) == [["1", "2"], [], ["3"]]


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
