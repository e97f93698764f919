import os
import time
from concurrent.futures import Future

import pytest

from orchestrator.lines import request as module
from orchestrator.lines.request import PushOptions, PushRequest

NOW = PushOptions()


def make_request(image: object, item: str, pass_: int, options: PushOptions) -> PushRequest:
    return module.make_request(image, item, pass_, options, Future())


@pytest.mark.parametrize("deadline", [0, -1, 0.0001, 3600.5, float("nan"), float("inf")])
def test_a_deadline_out_of_range_is_refused_with_the_range(deadline):
    with pytest.raises(ValueError, match=r"0\.001 to 3600 seconds"):
        make_request(b"image", "item", 1, PushOptions(deadline=deadline))


@pytest.mark.parametrize("deadline", ["1", True, b"1"])
def test_a_deadline_is_a_number(deadline):
    with pytest.raises(TypeError, match="a number of seconds"):
        make_request(b"image", "item", 1, PushOptions(deadline=deadline))


@pytest.mark.parametrize(("item", "error"), [("", ValueError), ("x" * 1001, ValueError), ("é" * 501, ValueError),
                                             ("\ud800", ValueError), (7, TypeError), (b"x", TypeError)])  # fmt: skip
def test_an_item_that_cannot_be_a_name_is_refused(item, error):
    with pytest.raises(error, match="item"):
        make_request(b"image", item, 1, NOW)


@pytest.mark.parametrize("item", ["x", "x" * 1000, "a/b c\x00\n", "ü", "{}*?[]"])
def test_any_text_is_an_item(item):
    assert make_request(b"image", item, 3, NOW).key == f"3/{item}"


def test_bytes_of_a_file_name_that_are_not_utf8_are_escaped():
    assert make_request(b"image", os.fsdecode(b"\xff.jpg"), 1, NOW).item == r"\xff.jpg"


@pytest.mark.parametrize(("pass_", "error"), [(0, ValueError), (-1, ValueError), (1_000_001, ValueError),
                                              (1.0, TypeError), (True, TypeError), ("1", TypeError)])  # fmt: skip
def test_a_pass_is_a_number_from_one(pass_, error):
    with pytest.raises(error, match="a pass is"):
        make_request(b"image", "item", pass_, NOW)


def test_the_age_of_the_trigger_is_taken_at_once():
    request = make_request(b"image", "item", 1, PushOptions(triggered_at=time.time() - 5))

    assert 5 <= request.age_s < 60


def test_a_trigger_slightly_ahead_has_no_age():
    assert make_request(b"image", "item", 1, PushOptions(triggered_at=time.time() + 0.5)).age_s == 0


@pytest.mark.parametrize("ahead_s", [3600, float("nan")])
def test_a_trigger_in_the_future_is_refused(ahead_s):
    with pytest.raises(ValueError, match=r"not a time\.time\(\) of the past"):
        make_request(b"image", "item", 1, PushOptions(triggered_at=time.time() + ahead_s))


@pytest.mark.parametrize("triggered_at", ["x", True, b"1"])
def test_a_trigger_that_is_no_number_is_refused(triggered_at):
    with pytest.raises(TypeError, match=r"triggered_at is a time\.time\(\), a number of seconds, not"):
        make_request(b"image", "item", 1, PushOptions(triggered_at=triggered_at))


def test_an_image_may_be_bytes_a_buffer_or_a_file(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"image")

    requests = [make_request(image, "item", 1, NOW) for image in (b"image", memoryview(b"image"), path, str(path))]

    assert {(request.payload, request.size, request.digest) for request in requests} == {
        (b"image", 5, requests[0].digest)
    }
    assert len(requests[0].digest) == 32


@pytest.mark.parametrize("image", [5, 2.5, ["image"], {"image": b"1"}])
def test_what_is_neither_bytes_nor_a_path_is_refused(image):
    with pytest.raises(TypeError, match=r"an image is bytes, or the path of a file, not (int|float|list|dict)"):
        make_request(image, "item", 1, NOW)


def test_an_image_that_cannot_be_read_is_no_error_of_the_caller(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").write_bytes(b"")

    images = [None, b"", tmp_path / "absent", tmp_path / "pipe", tmp_path, tmp_path / "empty"]
    requests = [make_request(image, "item", 1, NOW) for image in images]

    assert {request.reason for request in requests} == {"unreadable"}
    assert all(request.unsendable and request.error for request in requests)


def test_a_path_travels_with_its_size_and_time(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"image")
    options = PushOptions(by_path=True)

    first = make_request(path, "item", 1, options)
    os.utime(path, ns=(1, 1))
    second = make_request(path, "item", 1, options)

    assert (first.kind, first.size, first.path) == ("path", 5, str(path))
    assert second.payload == f'["{path}", 5, 1]'.encode()
    assert first.digest != second.digest


def test_bytes_are_no_path():
    with pytest.raises(TypeError, match="pushes the path of a file, not bytes"):
        make_request(b"image", "item", 1, PushOptions(by_path=True))
