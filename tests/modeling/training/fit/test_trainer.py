"""What makes two runs the same run."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.data.images import DecodedImages
from modeling.data.splits import Split
from modeling.images.preprocessing import Preprocessing
from modeling.networks.build import build_network
from modeling.training.fit.inputs import FitInputs, compute_logits
from modeling.training.fit.ranks import Ranks
from modeling.training.fit.trainer import RunContext, fingerprint
from modeling.training.request import TrainRequest

SHAPE = Preprocessing("L", 8, 8)


def facts(**options):
    request = TrainRequest(Path("data"), "perceptron", Path("out"), **options)
    context = RunContext(request, torch.device("cpu"), Ranks(), lambda event: None, "scratch", None)
    indices = np.arange(6)
    images = DecodedImages(np.zeros((6, 8, 8, 1), dtype=np.uint8))
    inputs = FitInputs(
        images, images, indices % 2, Split(indices[:4], indices[4:], indices[:0]), SHAPE, "of the images"
    )
    torch.manual_seed(0)
    return context, inputs, build_network("perceptron", SHAPE, 2)


def test_a_run_is_the_same_wherever_it_writes_and_whatever_is_accepted_later():
    run = fingerprint(*facts())

    assert fingerprint(*facts(work=Path("work"), max_error=0.2)) == run


@pytest.mark.parametrize("option", [{"seed": 1}, {"epochs": 3}, {"weights": "imagenet"}])
def test_another_option_makes_another_run(option):
    assert fingerprint(*facts(**option)) != fingerprint(*facts())


def test_changed_images_and_changed_weights_to_start_from_make_another_run():
    context, inputs, _ = facts()
    _, _, network = facts()
    assert fingerprint(context, replace(inputs, contents="of others"), network) != fingerprint(context, inputs, network)

    context, inputs, network = facts(weights="some file")
    setting_cnn = replace(context, request=replace(context.request, architecture="mlp"))
    mlp = build_network("mlp", SHAPE, 2)
    before = fingerprint(setting_cnn, inputs, mlp)
    with torch.no_grad():
        mlp[1].weight += 1
    assert fingerprint(setting_cnn, inputs, mlp) != before


def test_large_images_are_answered_few_at_a_time():
    shape = Preprocessing("L", 1024, 1024)
    sizes = []

    class Watched(torch.nn.Module):
        def forward(self, images):
            sizes.append(len(images))
            return images.mean(dim=(2, 3))

    images = DecodedImages(np.zeros((6, 1024, 1024, 1), dtype=np.uint8))
    compute_logits(Watched(), images, np.arange(6), shape, torch.device("cpu"))

    assert sizes == [4, 2]
