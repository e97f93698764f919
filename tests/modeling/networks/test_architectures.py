"""The registry: names, what a table says of torchvision, and torchvision itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from modeling.errors import ArchitectureError
from modeling.images.preprocessing import Preprocessing
from modeling.networks.architectures import ARCHITECTURES, default_preprocessing, get_architecture
from modeling.networks.pretrained.torchvision_files import BY_FILE, FILES
from modeling.networks.torchvision_table import ROWS

ROOT = Path(__file__).resolve().parents[3]


def test_the_table_is_what_torchvision_says():
    models = pytest.importorskip("torchvision.models")

    def facts_of(name):
        enum = models.get_model_weights(name)
        transforms = enum.DEFAULT.transforms()
        members = {member.name for member in enum if member.meta["categories"]}
        half = (list(transforms.mean), list(transforms.std)) == ([0.5] * 3, [0.5] * 3)
        return enum.__name__, members, enum.DEFAULT.name, transforms.crop_size, transforms.resize_size, half

    in_table = {
        row.name: (row.weights_enum, set(row.weights), row.weights[0], [row.image_size], [row.resize], row.half)
        for row in ROWS
    }

    assert in_table == {name: facts_of(name) for name in models.list_models(module=models)}


def test_the_table_of_files_is_what_torchvision_says():
    models = pytest.importorskip("torchvision.models")

    told = {}
    for row in ROWS:
        for name in (name for name in row.weights if "SWAG" not in name):
            weights = getattr(models, row.weights_enum)[name]
            figures = (weights.meta["_metrics"]["ImageNet-1K"]["acc@1"], weights.meta["_ops"])
            told[weights.url.rpartition("/")[2]] = (row.name, name.removeprefix("IMAGENET1K_"), *figures)

    assert {file: facts[1:] for file, facts in BY_FILE.items()} == {
        file: (architecture, member, round(top1, 1), round(gflops, 2))
        for file, (architecture, member, top1, gflops) in told.items()
    }
    assert len(BY_FILE) == len(FILES)


def test_weights_that_normalise_otherwise_than_imagenets_are_marked():
    models = pytest.importorskip("torchvision.models")

    for row in ROWS:
        transforms = models.get_model_weights(row.name).DEFAULT.transforms()
        preprocessing = default_preprocessing(get_architecture(row.name))
        assert (list(preprocessing.mean), list(preprocessing.std)) == (transforms.mean, transforms.std), row.name


def test_choosing_an_architecture_needs_no_torch():
    code = (
        "import sys; import modeling.networks.weights; from modeling.networks.architectures import get_architecture; "
        "modeling.networks.weights.check_weights('resnet50', 'IMAGENET1K_V1'); "
        "print(get_architecture('resnet50').weights, 'torch' in sys.modules)"
    )

    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert found.stdout == "IMAGENET1K_V2 False\n"


def test_an_unknown_name_is_told_the_nearest_our_own_and_how_to_see_the_rest():
    with pytest.raises(ArchitectureError) as told:
        get_architecture("resnet19")

    message = str(told.value)
    assert message.startswith(
        "unknown architecture 'resnet19'; did you mean 'resnet18'? choose one of perceptron, mlp,"
    )
    assert message.endswith(
        f"or one of torchvision's {len(ROWS)}, such as resnet18 or mobilenet_v2 "
        "(`pigeonhole models architectures` lists them)"
    )
    assert "vgg16" not in message


def test_another_image_size_keeps_the_proportion_of_the_cut():
    resnet = get_architecture("resnet18")

    assert default_preprocessing(resnet) == Preprocessing(
        "RGB", 224, 224, 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    assert default_preprocessing(resnet, 112).resize == 128
    assert default_preprocessing(resnet, mode="L") == Preprocessing("L", 224, 224, 256, mean=(0.5,), std=(0.5,))


def test_an_architecture_without_a_size_of_its_own_asks_for_one():
    with pytest.raises(ArchitectureError, match="cnn takes images of any size; give the image size in px"):
        default_preprocessing(get_architecture("cnn"))

    assert default_preprocessing(get_architecture("cnn"), 28) == Preprocessing("L", 28, 28)


def test_every_architecture_is_listed_under_its_own_name():
    assert [name for name, known in ARCHITECTURES.items() if known.name != name] == []
    assert len(ARCHITECTURES) == len(set(ARCHITECTURES)) > len(ROWS)
