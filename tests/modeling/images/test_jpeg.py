"""JPEGs take a way of their own; it must lead where Pillow's leads."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.decode import PREPROCESSING, enlarged, kind_scores, kinds, scores
from benchmarks.reference_decode import reference_decode
from modeling.errors import ImageError
from modeling.images.decode import decode_image
from modeling.images.jpeg import decode_jpeg, jpeg_size, outline_of
from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network
from tests.support.images import encode, real_data

WIDE = Preprocessing("RGB", 32, 64)


def smooth(width: int, height: int) -> Image.Image:
    """A picture with a bright corner at the top left, which tells its eight orientations apart."""
    ramp = np.add.outer(np.linspace(200, 60, height), np.linspace(50, 0, width)).astype(np.uint8)
    return Image.merge("RGB", [Image.fromarray(plane) for plane in (ramp, ramp // 2, 255 - ramp)])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_jpeg_is_turned_as_pillow_turns_it(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(smooth(96, 48), "JPEG", exif=exif, quality=95)

    found = decode_image(data, WIDE).astype(int)

    assert np.abs(found - reference_decode(data, WIDE)).max() <= 2


def test_an_orientation_in_xmp_counts_too():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    data = encode(smooth(64, 32), "JPEG", xmp=xmp)

    found = decode_image(data, WIDE).astype(int)

    assert np.abs(found - np.asarray(smooth(64, 32))[::-1, ::-1]).mean() < 3


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("wanted", ["L", "RGB"])
def test_grey_colour_and_cmyk_come_out_as_pillow_reads_them(mode, progressive, wanted):
    data = encode(smooth(100, 60).convert(mode), "JPEG", quality=95, progressive=progressive)
    preprocessing = Preprocessing(wanted, 30, 50, resize=50)

    found = decode_image(data, preprocessing).astype(int)

    plain = reference_decode(data, preprocessing).reshape(preprocessing.shape)
    assert np.abs(found - plain).max() <= 2


def test_missing_data_and_damage_are_left_to_pillow_to_name():
    data = encode(Image.effect_noise((200, 200), 60), "JPEG")

    for cut in (len(data) // 2, len(data) - 40):
        assert decode_jpeg(data[:cut], (200, 200), outline_of(data), min_side=10, grey=False) is None
        with pytest.raises(ImageError, match="ends too early"):
            decode_image(data[:cut], WIDE)


def test_what_is_no_jpeg_of_a_common_kind_is_left_to_pillow():
    assert jpeg_size(encode(Image.new("RGB", (9, 7)), "JPEG")) == (9, 7)
    assert jpeg_size(encode(Image.new("RGB", (9, 7)), "PNG")) is None
    assert jpeg_size(encode(Image.new("CMYK", (9, 7)), "JPEG")) is None
    assert jpeg_size(b"\xff\xd8\xff\xe0" + bytes(30)) is None


def test_the_size_in_the_header_is_refused_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr("modeling.images.decode.decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    data = encode(Image.new("L", (100, 100)), "JPEG")
    header = data.index(b"\xff\xc0")
    huge = data[: header + 5] + (60_000).to_bytes(2, "big") * 2 + data[header + 9 :]

    for bomb, limit in ((huge, 89_478_485), (data, 9_999)):
        with pytest.raises(ImageError) as caught:
            decode_image(bomb, WIDE, max_pixels=limit)
        assert caught.value.code == "too_large"


def test_a_header_that_is_unsupported_and_too_large_is_unsupported():
    data = encode(Image.new("L", (100, 100)), "JPEG")
    header = data.index(b"\xff\xc0")
    of_12_bits = data[: header + 4] + bytes([12]) + (60_000).to_bytes(2, "big") * 2 + data[header + 9 :]

    assert jpeg_size(of_12_bits) == (60_000, 60_000)
    with pytest.raises(ImageError) as caught:
        decode_image(of_12_bits, WIDE)
    assert caught.value.code == "unsupported"  # Pillow refuses 12 bits before it looks at the size


def test_the_crop_is_where_torchvision_cuts_it():
    from torchvision.transforms.v2 import functional

    image = smooth(333, 211)
    resized = functional.resize(image, [64], antialias=True)
    expected = np.asarray(functional.center_crop(resized, [48, 56])).astype(int)

    found = decode_image(encode(image), Preprocessing("RGB", 48, 56, resize=64))

    assert np.abs(found - expected).max() <= 1


def test_real_photographs_look_the_same_as_by_pillow_alone():
    folder = real_data("cats_dogs")
    preprocessing = Preprocessing("RGB", 224, 224, resize=256)
    means = []
    for path in sorted(folder.glob("*/*.jpg"))[::10]:
        difference = decode_image(path.read_bytes(), preprocessing).astype(int)
        difference -= reference_decode(path.read_bytes(), preprocessing)
        means.append(np.abs(difference).mean())
        assert np.abs(difference).max() <= 3, path.name

    assert np.mean(means) < 0.01  # of 255; `python -m benchmarks.decode` tells what labels make of it


def test_real_photographs_get_the_same_labels_as_by_pillow_alone():
    photographs = [path.read_bytes() for path in sorted(real_data("cats_dogs").glob("*/*.jpg"))[::50]]
    network = build_network("mobilenet_v2", PREPROCESSING, 1000).eval()
    weights = real_data("weights") / "mobilenet_v2_rebuilt.pth"
    network.load_state_dict(torch.load(weights, weights_only=True))

    ours, plain = (kinds(scores(network, photographs, decode)) for decode in (decode_image, reference_decode))

    assert float((ours == plain).double().mean()) >= 0.999
    assert set(ours.tolist()) >= {0, 1}  # cats and dogs: labels that mean something


@pytest.mark.parametrize("factor", [2, 4])
def test_photographs_decoded_at_a_fraction_get_the_same_labels_but_for_near_ties(factor):
    paths = sorted(real_data("cats_dogs").glob("*/*.jpg"))[:: 50 * factor]
    photographs = enlarged([path.read_bytes() for path in paths], factor)
    network = build_network("mobilenet_v2", PREPROCESSING, 1000).eval()
    network.load_state_dict(torch.load(real_data("weights") / "mobilenet_v2_rebuilt.pth", weights_only=True))

    ours, plain = (kind_scores(scores(network, photographs, decode)) for decode in (decode_image, reference_decode))

    best, second = plain.topk(2, dim=1).values.unbind(dim=1)
    sure = best - second > 0.1
    assert sure.double().mean() > 0.9
    assert torch.equal(ours[sure].argmax(dim=1), plain[sure].argmax(dim=1))
    assert (ours - plain).abs().mean() < 0.01


@pytest.mark.parametrize("size", [(513, 385), (520, 391), (391, 527), (1001, 771), (640, 480), (2047, 1537)])
@pytest.mark.parametrize("orientation", [1, 6, 3])
@pytest.mark.parametrize("resize", [None, 96])
def test_a_fraction_of_any_size_is_where_the_whole_is(size, orientation, resize):
    """The last pixels of a fraction may reach beyond the image; a ramp tells by how much all were moved."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramp = np.add.outer(np.linspace(0, 120, size[1]), np.linspace(0, 120, size[0])).astype(np.uint8)
    data = encode(Image.fromarray(ramp), "JPEG", quality=98, exif=exif)
    preprocessing = Preprocessing("L", 84, 90, resize=resize)

    difference = decode_image(data, preprocessing)[..., 0].astype(int) - reference_decode(data, preprocessing)

    assert abs(difference.mean()) < 0.12  # half a pixel of a half is worth 0.2 and more
    assert np.abs(difference).max() <= 2


def test_a_large_photograph_decoded_at_a_quarter_looks_the_same():
    folder = real_data("cats_dogs")
    photograph = Image.open(sorted(folder.glob("Cat/*.jpg"))[0]).convert("RGB").resize((2400, 1800), Image.LANCZOS)
    data = encode(photograph, "JPEG", quality=92)

    found = decode_image(data, Preprocessing("RGB", 224, 224)).astype(int)

    assert jpeg_size(data) == (2400, 1800)
    assert np.abs(found - reference_decode(data, Preprocessing("RGB", 224, 224))).mean() < 1.0
