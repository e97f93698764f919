import copy
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from modeling.data.dataset import Dataset
from modeling.data.images import DecodedImages
from modeling.errors import DataError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network, normalise
from modeling.networks.heads import features as head_features
from modeling.training.transfer.backbone import Backbone, weights_digest
from modeling.training.transfer.cache import FeatureCache, ImageSelection, cached_features
from modeling.training.transfer.features import Extractor, extract_features, fold_batch_norms, trace

CPU = torch.device("cpu")
GREY_12 = Preprocessing("L", 12, 12)
NUM_IMAGES = 40


def backbone(seed: int = 0, preprocessing: Preprocessing = GREY_12) -> Backbone:
    torch.manual_seed(seed)
    network = build_network("cnn_pyramid", preprocessing, 5)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):  # as if it had been trained
            nn.init.uniform_(layer.running_mean, -1, 1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return Backbone(network, "cnn_pyramid", preprocessing, CPU)


def pixels(seed: int = 1, num_images: int = NUM_IMAGES) -> np.ndarray:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (num_images, 12, 12, 1), dtype=np.uint8)
    images[::2, :6] //= 4  # class 0 is dark above
    return images


def dataset(tmp_path, images: np.ndarray) -> Dataset:
    return Dataset("idx", tmp_path, ("dark", "light"), np.arange(len(images)) % 2, pixels_NHWC=images)


class CountingImages(DecodedImages):
    """Counts which images are asked for, padding aside."""

    def __init__(self, images: np.ndarray) -> None:
        super().__init__(images)
        self.asked: list[int] = []

    def batches(self, index_batches):
        index_batches = list(index_batches)
        self.asked += [int(index) for indices_B in index_batches for index in indices_B]
        return super().batches(index_batches)


def ignore(event: dict) -> None:
    """Takes events that a test does not look at."""


def expected_features(source: Backbone, images: np.ndarray) -> np.ndarray:
    network = copy.deepcopy(source.network).eval()
    with torch.inference_mode():
        normalised = normalise(torch.from_numpy(images), source.preprocessing)
        return head_features(network, source.architecture, normalised).numpy()


def wanted(images: CountingImages, indices: np.ndarray, tmp_path) -> ImageSelection:
    digests = [hashlib.sha256(images.pixels_MHWC[index].tobytes()).hexdigest() for index in indices]
    return ImageSelection(images, indices, digests)


def test_features_are_what_the_head_is_given_in_the_order_asked_for():
    source, images = backbone(), pixels()
    indices = np.array([3, 39, 0, 3, 17, *range(40)])

    found = extract_features(Extractor(source), DecodedImages(images), indices, ignore)

    np.testing.assert_allclose(found, expected_features(source, images)[indices], atol=1e-4)


def test_the_network_is_left_as_it_was():
    source = backbone()
    source.network.train()
    before = copy.deepcopy(source.network.state_dict())

    extract_features(Extractor(source), DecodedImages(pixels()), np.arange(7), ignore)

    assert source.network.training
    after = source.network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_features_do_not_depend_on_how_many_images_are_wanted():
    extractor, images = Extractor(backbone()), DecodedImages(pixels())

    together = extract_features(extractor, images, np.arange(40), ignore)
    alone = extract_features(extractor, images, np.array([11]), ignore)

    np.testing.assert_array_equal(alone, together[[11]])


def test_torch_has_its_threads_back_afterwards():
    num_threads = torch.get_num_threads()

    extract_features(Extractor(backbone()), DecodedImages(pixels()), np.arange(3), ignore)

    assert torch.get_num_threads() == num_threads


def test_a_failing_source_ends_the_extraction_with_its_error():
    class Broken:
        def batches(self, index_batches):
            yield from DecodedImages(pixels()).batches([next(iter(index_batches))])
            raise DataError("img.png could be read before, and no longer can")

    num_threads = torch.get_num_threads()

    with pytest.raises(DataError, match=r"img\.png"):
        extract_features(Extractor(backbone()), Broken(), np.arange(40), ignore)

    assert torch.get_num_threads() == num_threads


def test_no_images_have_no_features():
    source = backbone()

    found = extract_features(Extractor(source), DecodedImages(pixels()), np.arange(0), ignore)

    assert found.shape == (0, source.num_features)


def test_every_normalisation_after_a_convolution_is_folded():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1, bias=False)
    ).eval()
    for layer in (network[1], network[3]):
        nn.init.uniform_(layer.running_mean, -1, 1)
        nn.init.uniform_(layer.running_var, 0.5, 2)
    images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = network(images)

        num_folded = fold_batch_norms(network, trace(network, images))
        after = network(images)

    assert num_folded == 1
    assert [type(layer) for layer in network] == [nn.Conv2d, nn.Identity, nn.ReLU, nn.BatchNorm2d, nn.Conv2d]
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_a_convolution_that_is_used_twice_is_not_folded():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution, self.norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)

        def forward(self, images):
            return self.norm(self.convolution(images)) + self.convolution(images)

    network = Twice().eval()

    assert fold_batch_norms(network, trace(network, torch.zeros(1, 1, 2, 2))) == 0


class _Aside(nn.Module):
    """Reads a convolution's result beside its normalisation, outside of any module."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.flatten = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Flatten()
        self.add_module("7", nn.Linear(144, 3))  # where `cnn` has its head

    def forward(self, images):
        seen = self.convolution(images)
        return self.get_submodule("7")(self.flatten(self.norm(seen) + seen.sin()))


def test_folding_that_would_change_features_is_taken_back():
    torch.manual_seed(0)
    network = _Aside()
    nn.init.constant_(network.norm.running_mean, 0.7)
    source, images = Backbone(network, "cnn", GREY_12, CPU), pixels()

    found = extract_features(Extractor(source), DecodedImages(images), np.arange(40), ignore)

    np.testing.assert_allclose(found, expected_features(source, images), atol=1e-5)


def test_the_key_tells_weights_and_preprocessing_apart_but_not_heads():
    keys = {
        "same": backbone().key(),
        "other weights": backbone(seed=1).key(),
        "other preprocessing": backbone(preprocessing=Preprocessing("L", 12, 12, mean=(0.4,), std=(0.5,))).key(),
    }
    other_head = backbone()
    head = other_head.network.get_submodule("16")
    nn.init.zeros_(head.weight)

    assert len(set(keys.values())) == 3
    assert other_head.key() == backbone().key() == keys["same"]
    assert weights_digest(other_head.network, "cnn_pyramid") == weights_digest(backbone().network, "cnn_pyramid")


def test_a_second_run_computes_nothing_and_a_third_only_what_is_new(tmp_path):
    source, cache, images = backbone(), FeatureCache(tmp_path / "cache"), pixels()
    first, second, third = (CountingImages(images) for _ in range(3))

    features = cached_features(source, wanted(first, np.arange(30), tmp_path), cache, ignore)
    again = cached_features(source, wanted(second, np.arange(30), tmp_path), cache, ignore)
    more = cached_features(source, wanted(third, np.arange(40), tmp_path), cache, ignore)

    assert (first.asked, second.asked, third.asked) == (list(range(30)), [], list(range(30, 40)))
    np.testing.assert_array_equal(again, features)
    np.testing.assert_array_equal(more[:30], features)
    np.testing.assert_allclose(more, expected_features(source, images), atol=1e-4)


def test_progress_counts_what_the_cache_knew(tmp_path):
    source, cache, events = backbone(), FeatureCache(tmp_path / "cache"), []
    cached_features(source, wanted(CountingImages(pixels()), np.arange(30), tmp_path), cache, ignore)

    cached_features(source, wanted(CountingImages(pixels()), np.arange(40), tmp_path), cache, events.append)

    assert events[0] == {"event": "features", "num_done": 30, "num_images": 40}
    assert events[-1] == {"event": "features", "num_done": 40, "num_images": 40}


def test_a_cache_that_cannot_be_written_costs_a_note_and_no_features(tmp_path):
    source, images, events = backbone(), pixels(), []
    (tmp_path / "file").write_text("no folder")

    found = cached_features(
        source,
        wanted(CountingImages(images), np.arange(40), tmp_path),
        FeatureCache(tmp_path / "file" / "cache"),
        events.append,
    )

    np.testing.assert_allclose(found, expected_features(source, images), atol=1e-4)
    assert events[-1]["event"] == "note"
    assert "cannot be cached for the next run" in events[-1]["text"]
