"""A short run of `make fuzz-files`, and that it would find what it looks for."""

import io
import os
import signal

import pytest
from PIL import Image

from benchmarks import fuzz_cases, fuzz_files
from modeling.errors import ImageError
from tests.support.images import encode


def test_mutated_files_of_every_format_crash_nothing_and_hang_nothing():
    found = fuzz_files.fuzz(seed=1, count=300, data=None, num_processes=1)

    assert found.findings == []
    assert found.codes.total() == 300
    assert found.codes["ok"] > 20


def test_a_case_is_the_same_each_time_and_unlike_others():
    files = [fuzz_cases.case(5, number, None) for number in (7, 7, 8)]

    assert files[0] == files[1] != files[2]


@pytest.mark.filterwarnings("ignore")
def test_every_sample_is_decoded():
    refused = [sample[:20] for sample in fuzz_cases.samples(None) if fuzz_cases.try_case(sample) != ("ok", "")]

    assert refused == []
    formats = {Image.open(io.BytesIO(sample)).format for sample in fuzz_cases.samples(None)}
    assert len(formats) >= 14


def test_what_crashes_runs_out_of_memory_or_is_ok_without_pixels_is_found(monkeypatch):
    def raises(error):
        def decode(*_):
            raise error

        return decode

    cut = encode(Image.effect_noise((64, 64), 50), "PNG")[:900]
    monkeypatch.setattr(fuzz_cases, "check_image", lambda file: None)
    for decode, found in (
        (raises(RuntimeError("gone")), ("crash", "RuntimeError: gone")),
        (
            raises(ImageError("too_large", "decoding would take too much memory: MemoryError")),
            ("too_large", "memory ran out"),
        ),
        (lambda *_: None, ("ok", "Pillow cannot load it")),
    ):
        monkeypatch.setattr(fuzz_cases, "decode_image", decode)
        code, wrong = fuzz_cases.try_case(cut)
        assert (code, wrong[: len(found[1])]) == found


def test_a_jpeg_may_lack_its_end_marker_and_a_png_may_have_damaged_metadata():
    jpeg = encode(Image.effect_noise((64, 64), 50), "JPEG")[:-2]
    png = encode(Image.effect_noise((64, 64), 50))
    damaged = png[:33] + b"\0\0\0\x02zTXtxx1234" + png[33:]

    assert fuzz_cases.is_loadable(jpeg)
    assert not fuzz_cases.is_loadable(jpeg[:-300])
    assert fuzz_cases.is_loadable(damaged)
    assert not fuzz_cases.is_loadable(png[:-300])


def die_or_hang(pipe, seed, data):
    """Instead of decoding: dies at case 3, hangs at case 60."""
    while True:
        try:
            cases = pipe.recv()
        except EOFError:
            return
        for number in cases:
            if number == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            while number == 60:
                pass
            pipe.send(("ok", ""))


def test_a_process_that_dies_or_hangs_costs_one_case_and_is_replaced(monkeypatch):
    monkeypatch.setattr(fuzz_files, "_decode_cases", die_or_hang)
    monkeypatch.setattr(fuzz_files, "START_METHOD", "fork")

    found = fuzz_files.fuzz(seed=1, count=101, data=None, num_processes=2, bound_s=0.2)

    assert sorted(found.findings) == [
        (3, "the process died with exit code -9"),
        (60, "more than 0 seconds of processor time"),
    ]
    assert found.codes == {"ok": 99, "crash": 1, "hang": 1}
