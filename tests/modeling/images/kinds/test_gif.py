"""A second frame of a GIF is found without decoding it, as Pillow finds it."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from modeling.images.kinds.gif import has_further_frames
from tests.support.images import encode, real_data

NOISE = [Image.effect_noise((90, 70), 90 + shade).quantize(64) for shade in range(3)]
ONE, THREE = encode(NOISE[0], "GIF"), encode(NOISE[0], "GIF", save_all=True, append_images=NOISE[1:])


def by_pillow(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:
        return bool(image.is_animated)


def test_one_frame_and_several_are_told_apart():
    assert [has_further_frames(ONE), has_further_frames(THREE)] == [False, True]
    assert not has_further_frames(encode(NOISE[0], "GIF", comment=b"c" * 999))
    assert not has_further_frames(ONE[:-1])
    assert not has_further_frames(ONE[: len(ONE) // 2])
    assert not has_further_frames(b"GIF89a")


@given(st.lists(st.integers(1, 255), max_size=40))
def test_parts_of_any_length_are_skipped(lengths):
    frame = b"\x2c" + bytes(8) + b"\0\x02" + b"".join(bytes([n]) + bytes([0x2C]) * n for n in lengths) + b"\0"
    head = b"GIF89a" + bytes(7) + b"\x21\xf9\x04\0\0\0\0\0"

    assert not has_further_frames(head + frame + b";")
    assert has_further_frames(head + frame + frame + b";")


@pytest.mark.filterwarnings("ignore")
def test_real_gifs_are_judged_as_pillow_judges_them():
    files = [path.read_bytes() for path in sorted(real_data("pathological").rglob("*.gif"))]

    found = []
    for data in files:
        try:
            expected = by_pillow(data)
        except Exception:  # noqa: S112 damaged ones, of which there are many, raise anything
            continue
        found.append((has_further_frames(data), expected))

    assert len(found) > 20
    assert np.mean([ours == theirs for ours, theirs in found]) > 0.9
    assert {ours for ours, _ in found} == {False, True}
