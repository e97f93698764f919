"""A device's decoder: run here on the processor, where torchcodec's libjpeg-turbo takes nvJPEG's place."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from modeling.images.decode import decode_image
from modeling.images.formats import MAX_PIXELS
from modeling.images.preprocessing import Preprocessing
from modeling.inference import choose_engine, nvjpeg
from modeling.inference.choose_engine import load_fastest
from modeling.inference.engines.choice import CORES, GPU
from modeling.inference.find_engine import Found, with_decoder, with_engine
from modeling.inference.nvjpeg import NvJpeg, fastest_decoder
from modeling.inference.pipeline import predict_units
from tests.support.fakes import FakeClassifier
from tests.support.images import encode, real_data
from tests.support.pictures import photo
from tests.support.published_models import publish_model

CPU = torch.device("cpu")
STRETCHED, CUT = Preprocessing("RGB", 40, 60), Preprocessing("RGB", 32, 32, resize=36)


def jpeg(seed: int, size: tuple[int, int] = (160, 120), **options) -> bytes:
    return encode(photo(seed, size), "JPEG", quality=92, **options)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(1, exif=exif)


def check_near(found: np.ndarray | None, data: bytes, preprocessing: Preprocessing, largest: float = 2) -> None:
    """Pixels are those of the processor's way, but for rounding."""
    assert found is not None
    assert (found.shape, found.dtype) == (preprocessing.shape, np.uint8)
    assert np.abs(found.astype(int) - decode_image(data, preprocessing)).max() <= largest


@pytest.mark.parametrize("preprocessing", [STRETCHED, CUT, Preprocessing("L", 40, 60), Preprocessing("RGB", 120, 160)])
def test_photographs_come_out_as_the_cores_decode_them(preprocessing):
    files = [jpeg(1), jpeg(2, (75, 100)), encode(photo(3).convert("L"), "JPEG"), jpeg(4, progressive=True)]

    found = NvJpeg(preprocessing, CPU)(files, MAX_PIXELS)

    for pixels, data in zip(found, files, strict=True):
        check_near(pixels, data, preprocessing)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_exif(orientation):
    [found] = NvJpeg(STRETCHED, CPU)([turned(orientation)], MAX_PIXELS)

    check_near(found, turned(orientation), STRETCHED)


def test_what_is_not_plainly_a_jpeg_is_left_to_the_cores():
    odd = {
        "a PNG": encode(photo(1)),
        "CMYK": encode(photo(1).convert("CMYK"), "JPEG"),
        "cut short": jpeg(1)[:-400],
        "no file": b"",
        "too many pixels": jpeg(1, (161, 120)),
    }

    found = NvJpeg(STRETCHED, CPU)([*odd.values(), jpeg(2)], 160 * 120)

    assert [pixels is None for pixels in found] == [True] * len(odd) + [False]


def test_files_that_the_device_refuses_are_found_by_halves_and_the_others_decoded(monkeypatch):
    files = [jpeg(seed) for seed in range(7)]
    calls = []

    def picky(tensors, **options):
        calls.append(len(tensors))
        if any(bytes(tensor.numpy()) == files[4] for tensor in tensors):
            raise RuntimeError("nvjpegDecodeBatched failed: 2")
        return decode(tensors, **options)

    decode = nvjpeg.decode_jpeg
    monkeypatch.setattr(nvjpeg, "decode_jpeg", picky)

    found = NvJpeg(STRETCHED, CPU)(files, MAX_PIXELS)

    assert [pixels is None for pixels in found] == [place == 4 for place in range(7)]
    assert calls == [7, 3, 3, 4, 2, 1, 1, 1, 1, 1, 2, 2]  # a pair is a plain image's, to see that it is the file


def test_files_whose_data_end_early_are_left_to_the_cores():
    whole = jpeg(1)
    unfinished = [whole[: int(len(whole) * share)] + b"\xff\xd9" for share in (0.3, 0.6, 0.9)]

    found = NvJpeg(STRETCHED, CPU)([jpeg(2), *unfinished, whole], MAX_PIXELS)

    assert [pixels is None for pixels in found] == [False, True, True, True, False]


def test_an_image_that_comes_out_otherwise_behind_others_is_left_to_the_cores(monkeypatch):
    files = [jpeg(seed) for seed in range(3)]
    decode = nvjpeg.decode_jpeg

    def remember_the_one_before(tensors, **options):
        images = decode(tensors, **options)
        images[1][:, -8:] = images[0][:, -8:]
        return images

    monkeypatch.setattr(nvjpeg, "decode_jpeg", remember_the_one_before)

    assert [pixels is None for pixels in NvJpeg(STRETCHED, CPU)(files, MAX_PIXELS)] == [False, True, False]


def test_a_device_that_fails_at_everything_is_no_files_fault(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(nvjpeg, "decode_jpeg", fail)

    with pytest.raises(RuntimeError, match="illegal memory access"):
        NvJpeg(STRETCHED, CPU)([jpeg(1), jpeg(2)], MAX_PIXELS)


def test_a_device_without_memory_for_one_file_leaves_it_to_nobody(monkeypatch):
    decode, large = nvjpeg.decode_jpeg, jpeg(1)

    def full(tensors, **options):
        if any(bytes(tensor.numpy()) == large for tensor in tensors):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return decode(tensors, **options)

    monkeypatch.setattr(nvjpeg, "decode_jpeg", full)

    with pytest.raises(MemoryError, match="out of memory"):
        NvJpeg(STRETCHED, CPU)([large], MAX_PIXELS)


def test_an_image_that_cannot_be_scaled_on_the_device_is_left_to_the_cores(monkeypatch):
    def scale(images, *size):
        if images.shape[3] > 160:
            raise RuntimeError("Too much shared memory required: 75000 vs 49152")
        return interpolated(images, *size)

    interpolated = nvjpeg.interpolated
    monkeypatch.setattr(nvjpeg, "interpolated", scale)

    found = NvJpeg(STRETCHED, CPU)([jpeg(1), jpeg(2, (200, 100)), jpeg(3)], MAX_PIXELS)

    assert [pixels is None for pixels in found] == [False, True, False]


def test_an_image_many_times_the_models_size_is_not_even_tried(monkeypatch):
    tiny = Preprocessing("RGB", 2, 2)
    monkeypatch.setattr(nvjpeg, "decode_jpeg", lambda *_, **__: pytest.fail("tried"))

    assert NvJpeg(tiny, CPU)([jpeg(1, (160, 4))], MAX_PIXELS) == [None]


@pytest.mark.parametrize("place", ["after much else", "named in a comment"])
def test_an_orientation_wherever_it_stands_is_applied_once(place):
    segment = b"\xff\xfe\x00\x10\xff\xe1\x00\x10Exif\0\0\0\0\0\0" if place == "named in a comment" else b""
    segment = segment or (b"\xff\xfe\xff\xff" + bytes(0xFFFD)) * 3
    data = turned(3)[:2] + segment + turned(3)[2:]

    [found] = NvJpeg(STRETCHED, CPU)([data], MAX_PIXELS)

    check_near(found, turned(3), STRETCHED)


def test_large_images_are_decoded_few_at_a_time(monkeypatch):
    sizes = []
    decode = nvjpeg.decode_jpeg
    monkeypatch.setattr(nvjpeg, "_MAX_PIXELS", 2 * 160 * 120)
    monkeypatch.setattr(
        nvjpeg, "decode_jpeg", lambda tensors, **options: (sizes.append(len(tensors)), decode(tensors, **options))[1]
    )

    found = NvJpeg(STRETCHED, CPU)([jpeg(seed) for seed in range(5)], MAX_PIXELS)

    assert sizes == [2, 2, 2, 2, 1, 1]  # each twice
    assert all(pixels is not None for pixels in found)


def test_a_job_decodes_on_the_device_and_names_bad_images_as_ever():
    """What the device leaves, the cores decode; order is kept, and a missing file stays a missing file."""
    preprocessing = Preprocessing("L", 4, 4)
    shades = range(0, 250, 10)
    files = [encode(Image.new("L", (16, 16), shade), "JPEG" if shade % 20 else "PNG") for shade in shades]
    files[3], files[5] = files[3][:-2], files[5][:-5]  # without an end marker; and without pixels
    asked = []

    def together(files, max_pixels):
        asked.append(len(files))
        return NvJpeg(preprocessing, CPU)(files, max_pixels)

    def missing() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    classifier = FakeClassifier(preprocessing=preprocessing, batch_decoder=together)
    sources = [lambda data=data: data for data in files] + [missing]

    predictions = [each for result in predict_units([sources], classifier, top_k=1) for each in result.predictions]

    assert sum(asked) == len(sources)
    errors = [prediction.error_code for prediction in predictions]
    assert errors == [None] * 5 + ["truncated"] + [None] * (len(files) - 6) + ["unreadable"]
    assert classifier.seen == [shade for shade in shades if shade != 50]


@pytest.mark.parametrize(("gpu_s", "expected"), [(0.5, GPU), (0.95, CORES), (2.0, CORES)])
def test_the_faster_decoder_is_chosen(monkeypatch, gpu_s, expected):
    def per_sec(work, num_images):
        work()
        asked.append(num_images)
        return num_images / (1.0 if len(asked) == 1 else gpu_s * num_images / asked[0])

    asked = []
    monkeypatch.setattr(nvjpeg, "_per_sec", per_sec)

    name, speeds, refused = fastest_decoder(STRETCHED, CPU, 8)

    assert (name, refused) == (expected, {})
    assert speeds[GPU] == pytest.approx(speeds[CORES] / gpu_s)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda files, limit: [None] * len(files), "it refuses a plain JPEG"),
        (lambda files, limit: [np.zeros(STRETCHED.shape, np.uint8)] * len(files), "pixels differ by .* of 255"),
    ],
)
def test_a_decoder_that_shows_something_else_is_refused_with_the_reason(monkeypatch, answer, why):
    monkeypatch.setattr(nvjpeg, "NvJpeg", lambda *_: answer)

    name, speeds, refused = fastest_decoder(STRETCHED, CPU, 8)

    assert (name, list(speeds)) == (CORES, [CORES])
    assert re.search(why, refused[GPU])


def test_a_device_without_nvjpeg_leaves_decoding_to_the_cores_and_says_why(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("decode_jpegs_cuda: torchcodec was not compiled with nvJPEG support")

    monkeypatch.setattr(nvjpeg, "decode_jpeg", fail)

    name, _, refused = fastest_decoder(STRETCHED, CPU, 8)

    assert name == CORES
    assert refused == {GPU: "RuntimeError: decode_jpegs_cuda: torchcodec was not compiled with nvJPEG support"}


def test_the_decoder_is_remembered_with_the_engine(tmp_path, monkeypatch):
    version = publish_model(tmp_path / "models", "digits")
    find = choose_engine.find

    def on_a_gpu(classifier, *args):
        choice = replace(find(classifier, *args).choice, engine="torch fp32")  # whichever was faster here
        monkeypatch.setattr(nvjpeg, "fastest_decoder", lambda *_: (GPU, {CORES: 1.0, GPU: 9.0}, {}))
        choice = with_decoder(choice, classifier)
        return Found(choice, with_engine(classifier, classifier.reference, choice), by_weights=False, lacking=False)

    monkeypatch.setattr(choose_engine, "find", on_a_gpu)
    first = load_fastest(version)
    monkeypatch.setattr(choose_engine, "find", lambda *_: pytest.fail("measured again"))
    second = load_fastest(version)

    assert isinstance(first.batch_decoder, NvJpeg)
    assert isinstance(second.batch_decoder, NvJpeg)
    assert first.engine_name == second.engine_name
    assert first.engine_name.endswith(", nvjpeg")


def test_real_photographs_are_decoded_alike():
    files = [path.read_bytes() for path in sorted((real_data("cats_dogs") / "Cat").glob("*.jpg"))[:40]]
    preprocessing = Preprocessing("RGB", 224, 224, 256)

    found = NvJpeg(preprocessing, CPU)(files, MAX_PIXELS)

    assert all(pixels is not None for pixels in found)
    for pixels, data in zip(found, files, strict=True):
        assert np.abs(pixels.astype(int) - decode_image(data, preprocessing)).mean() < 0.5
