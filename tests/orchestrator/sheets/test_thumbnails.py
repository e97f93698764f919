"""Pictures of a manifest's images: bounded, and never from elsewhere."""

import io
import os
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.contract.jobs.rows import Row
from orchestrator.sheets.thumbnails import ImageSource, Shown, show_rows
from tests.support.images import encode
from tests.support.manifests import answered, failed


@pytest.fixture
def source(tmp_path: Path) -> ImageSource:
    root = tmp_path / "in"
    root.mkdir()
    (tmp_path / "secret.jpg").write_bytes(encode(Image.new("RGB", (9, 9)), "JPEG"))
    return ImageSource(str(root), max_file_bytes=1 << 20, max_pixels=1_000_000)


def put(source: ImageSource, name: str, image: Image.Image, format: str = "JPEG", **options: object) -> Row:
    Path(source.root, name).write_bytes(encode(image, format, **options))
    return answered(name, "cat")


def opened(shown: Shown) -> Image.Image:
    assert shown.thumbnail is not None, shown
    image = Image.open(io.BytesIO(shown.thumbnail.data))
    assert image.size == (shown.thumbnail.width, shown.thumbnail.height)
    return image


def test_a_photograph_becomes_a_small_jpeg_that_says_nothing_of_where_it_was_taken(source):
    exif = Image.Exif()
    exif[0x0112] = 6  # on its side
    exif[0x010E] = "at home"
    row = put(source, "a.jpg", Image.new("RGB", (1600, 400), "red"), exif=exif)

    picture = opened(source.show(row, 240))

    assert (picture.format, picture.size, picture.mode) == ("JPEG", (60, 240), "RGB")
    assert not picture.getexif()


def test_a_tiny_image_keeps_its_pixels(source):
    image = Image.effect_noise((28, 28), 50)
    row = put(source, "a.png", image, "PNG")

    picture = opened(source.show(row, 240))

    assert picture.format == "PNG"
    assert picture.convert("L").tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I;16"])
def test_every_kind_of_image_has_a_picture(source, mode):
    row = put(source, "a.tif", Image.new(mode, (300, 100)), "TIFF")

    assert opened(source.show(row, 240)).size == (240, 80)


def test_a_row_without_an_answer_is_not_opened(source):
    row = failed("a.jpg", "crashed_worker", "processes died")
    os.mkfifo(Path(source.root, "a.jpg"))

    assert source.show(row, 240) == Shown(code="crashed_worker", message="processes died")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("gone.jpg", "missing"),
        ("pipe", "not_a_file"),
        ("folder", "not_a_file"),
        ("../secret.jpg", "outside_root"),
        ("x/../../secret.jpg", "outside_root"),
        ("/etc/passwd", "outside_root"),
        (".", "not_a_file"),
        ("text.jpg", "not_an_image"),
        ("empty.jpg", "empty"),
        ("cut.jpg", "truncated"),
        ("large.png", "too_large"),
        ("bytes.jpg", "too_large"),
        ("nul\0.jpg", "outside_root"),
        ("l" * 300 + ".jpg", "missing"),
    ],
)
def test_an_image_that_cannot_be_shown_has_its_reason(source, path, code):
    root = Path(source.root)
    (root / "folder").mkdir()
    os.mkfifo(root / "pipe")
    (root / "text.jpg").write_text("hello " * 20)
    (root / "empty.jpg").touch()
    (root / "cut.jpg").write_bytes(encode(Image.effect_noise((300, 300), 50), "JPEG")[:2000])
    (root / "large.png").write_bytes(encode(Image.new("1", (1001, 1000))))
    (root / "bytes.jpg").write_bytes(bytes(1 << 20) + b"x")

    shown = source.show(answered(path, "cat"), 240)

    assert shown.thumbnail is None
    assert shown.code == code
    assert shown.message


def test_pictures_come_in_the_order_of_their_rows(source):
    rows = [put(source, f"{side}.png", Image.new("L", (side, 1)), "PNG") for side in range(1, 60)]

    assert [opened(shown).width for shown in show_rows(source, iter(rows), 240)] == list(range(1, 60))
