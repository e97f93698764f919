import hashlib
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from modeling.data.duplicates import MAX_SET, DuplicateResult, Duplicates, find_duplicates, group_numbers
from modeling.data.facts import check_image, check_pixels
from modeling.data.forms.open import open_dataset
from modeling.data.same_picture import COPY
from tests.support.images import encode, real_data
from tests.support.pictures import photo, plates


def duplicates_of(*images: bytes) -> list[tuple[tuple[int, ...], bool]]:
    digests = [hashlib.sha256(data).hexdigest() for data in images]
    found = find_duplicates(digests, [check_image(data) for data in images]).duplicates
    return [(duplicates.indices, duplicates.exact) for duplicates in found]


def test_the_same_bytes_are_exact_duplicates_wherever_they_are():
    first, second = encode(photo(1)), encode(photo(2))

    assert duplicates_of(first, second, first, encode(photo(3)), second, first) == [
        ((0, 2, 5), True),
        ((1, 4), True),
    ]


COPIES = {
    "another format": lambda image: encode(image, "JPEG", quality=60),
    "half the size": lambda image: encode(image.resize((image.width // 2, image.height // 2))),
    "brighter": lambda image: encode(ImageEnhance.Brightness(image).enhance(1.15)),
    "less contrast": lambda image: encode(ImageEnhance.Contrast(image).enhance(0.8)),
    "without metadata": lambda image: encode(image, "WEBP", lossless=True),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_a_near_duplicate_and_other_pictures_are_not(copy):
    image = photo(1, (192, 144))
    others = [encode(photo(seed, (192, 144))) for seed in range(2, 8)]

    assert duplicates_of(*others, encode(image), COPIES[copy](image)) == [((6, 7), False)]


def test_copies_of_copies_are_one_set_with_exact_ones_among_them():
    image = photo(1, (192, 144))
    png, jpeg, small = encode(image), encode(image, "JPEG"), encode(image.resize((96, 72)))

    assert duplicates_of(jpeg, encode(photo(2)), small, png, jpeg) == [((0, 2, 3, 4), False)]


def drawn(text: str, background: int = 255, place: tuple[int, int] = (16, 8)) -> bytes:
    image = Image.new("L", (64, 64), background)
    ImageDraw.Draw(image).text(place, text, fill=0, font=ImageFont.load_default(48))
    return encode(image)


def grained(seed: int) -> bytes:
    """A grey plate lit from one side, with the grain of its own surface."""
    light = np.linspace(90, 160, 256)[None, :] + np.zeros((256, 1))
    grain = np.random.default_rng(seed).normal(0, 20, (256, 256))
    return encode(Image.fromarray((light + grain).clip(0, 255).astype(np.uint8)))


def stroke(shift: float) -> bytes:
    """A handwritten one of 28 x 28 px, as MNIST has them: a slanted line that ends in soft grey."""
    image = Image.new("L", (280, 280))
    ImageDraw.Draw(image).line([(170 + 2 * shift, 45), (110, 235)], fill=255, width=32)
    return encode(image.resize((28, 28), Image.Resampling.BOX))


def recoloured(image: Image.Image) -> bytes:
    luma, first, second = image.convert("YCbCr").split()
    return encode(Image.merge("YCbCr", (luma, second, first)).convert("RGB"))


UNLIKE = {
    "letters": [drawn(letter) for letter in "EFCGOQPR"],
    "the same letter elsewhere": [drawn("E"), drawn("E", place=(18, 8))],
    "flat images": [encode(Image.new("L", (64, 64), value)) for value in (0, 1, 127, 128, 255)],
    "almost empty pages": [drawn(".", place=place) for place in ((2, 2), (40, 0), (20, 10))],
    "plates lit alike": [grained(seed) for seed in range(4)],
    "another colour": [encode(photo(1)), recoloured(photo(1))],
    "the same stroke by other hands": [stroke(0), stroke(1)],
    "another shape": [encode(photo(1, (96, 72))), encode(photo(1, (96, 96)))],
}


@pytest.mark.parametrize("what", UNLIKE)
def test_what_only_looks_alike_at_a_glance_is_no_duplicate(what):
    assert duplicates_of(*UNLIKE[what]) == []


def test_what_a_fixed_camera_sees_is_told_as_look_alikes_and_only_exact_copies_count():
    images = plates(MAX_SET + 1, noise=4)
    data = [*images, encode(photo(2)), images[3]]

    found = find_duplicates([hashlib.sha256(image).hexdigest() for image in data], list(map(check_image, data)))

    assert found.duplicates == (Duplicates((3, MAX_SET + 2), True),)
    assert found.look_alikes == (*range(MAX_SET + 1), MAX_SET + 2)


def test_a_set_that_is_too_large_is_taken_apart_by_stricter_limits():
    alike = plates(MAX_SET, noise=18)
    again = encode(Image.open(io.BytesIO(alike[0])), "WEBP", lossless=True)
    data = [*alike, again]
    assert duplicates_of(*alike) == [(tuple(range(MAX_SET)), False)]

    found = find_duplicates([hashlib.sha256(image).hexdigest() for image in data], list(map(check_image, data)))

    assert found == DuplicateResult((Duplicates((0, MAX_SET), False),), ())


def test_limits_for_small_images_are_stricter(monkeypatch):
    strokes = UNLIKE["the same stroke by other hands"]

    monkeypatch.setattr("modeling.data.duplicates.SMALL", COPY)

    assert duplicates_of(*strokes) == [((0, 1), False)]


def test_copies_of_small_glyphs_are_found():
    glyphs = [Image.open(io.BytesIO(drawn(letter))).resize((28, 28)) for letter in "EFCGOQPR"]
    again = ImageEnhance.Brightness(glyphs[2]).enhance(0.9)

    assert duplicates_of(*map(encode, glyphs), encode(again)) == [((2, 8), False)]


@pytest.mark.parametrize(("folder", "num_near"), [("mnist", 0), ("notmnist", 157)])
def test_the_copies_among_real_glyphs_are_found_and_handwritten_digits_are_none(folder, num_near):
    dataset = open_dataset(real_data(folder))
    digests = [hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in dataset.pixels_NHWC]

    found = find_duplicates(digests, list(check_pixels(dataset.pixels_NHWC)))

    assert sum(not duplicates.exact for duplicates in found.duplicates) == num_near


def test_images_without_facts_are_in_no_set():
    fact = check_image(encode(photo(1)))

    assert find_duplicates(["a", "", "", "a"], [fact, None, None, fact]).duplicates == (Duplicates((0, 3), True),)


def test_groups_are_numbered_by_their_first_image():
    groups = group_numbers(6, [Duplicates((1, 3, 5), True)])

    assert groups.tolist() == [0, 1, 2, 1, 4, 1]


def test_the_one_pair_of_real_postcards_printed_twice_is_found():
    folder = real_data("postcards") / "images" / "work"
    files = sorted(folder.iterdir())
    pair = [files.index(folder / name) for name in ("FI-0970-0496.jpg", "FI-0970-0970.jpg")]

    assert duplicates_of(*(path.read_bytes() for path in files)) == [(tuple(pair), False)]
