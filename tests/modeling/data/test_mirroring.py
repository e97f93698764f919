import numpy as np
from PIL import Image

from modeling.data.dataset import Dataset
from modeling.data.forms.open import open_dataset
from modeling.data.mirroring import mirroring_matters

NUM_IMAGES = 240


def shapes(*, sided: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coloured shapes of three classes: stems with a bowl at one side or none, or bars that stay the same mirrored."""
    rng = np.random.default_rng(0)
    targets = np.arange(NUM_IMAGES) % 3
    inks = np.zeros((NUM_IMAGES, 24, 24))
    for ink, target in zip(inks, targets, strict=True):
        top = 4 + int(rng.integers(-2, 3))
        if sided:
            ink[top : top + 16, 11:13] = 1
            ink[top + 8 : top + 16, (slice(4, 11), slice(13, 20), slice(11, 13))[target]] = 1
        else:
            ink[top + 6 * target : top + 6 * target + 4, 4:20] = 1
    paper, noise = rng.uniform(150, 250, (NUM_IMAGES, 1, 1, 3)), rng.normal(0, 12, (NUM_IMAGES, 24, 24, 3))
    return (paper * (1 - 0.7 * inks[..., None]) + noise).clip(0, 255).astype(np.uint8), targets


def in_memory(tmp_path, images, targets) -> Dataset:
    return Dataset("cifar10", tmp_path, ("a", "b", "c"), targets, pixels_NHWC=images)


def test_shapes_of_which_one_is_the_mirror_image_of_another_must_not_be_mirrored(tmp_path):
    assert mirroring_matters(in_memory(tmp_path, *shapes(sided=True)))


def test_shapes_that_look_the_same_mirrored_may_be(tmp_path):
    assert not mirroring_matters(in_memory(tmp_path, *shapes(sided=False)))


def test_nothing_is_claimed_of_a_handful_of_images_or_of_images_that_are_all_the_same(tmp_path):
    images, targets = shapes(sided=True)

    assert not mirroring_matters(in_memory(tmp_path, images[:5], targets[:5]))
    assert not mirroring_matters(in_memory(tmp_path, np.full_like(images, 7), targets))


def test_files_are_read_whatever_is_broken_or_huge_among_them(tmp_path):
    for index, (image, target) in enumerate(zip(*shapes(sided=True), strict=True)):
        (tmp_path / "abc"[target]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "abc"[target] / f"{index}.png")
    (tmp_path / "a" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (4000, 10)).save(tmp_path / "b" / "wide.png")

    assert mirroring_matters(open_dataset(tmp_path))
