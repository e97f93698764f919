import json

from benchmarks.accuracy import GOALS
from benchmarks.accuracy_data import IMAGENET_LABELS, imagenet
from modeling.data.forms.open import open_dataset
from modeling.exchange.import_weights import read_labels
from tests.support.images import real_data


def test_rows_have_names_of_their_own():
    assert len({goal.name for goal in GOALS}) == len(GOALS)


def test_photographs_of_imagenet_are_listed_with_labels_that_the_network_has(tmp_path):
    data = real_data("imagenet_samples").parent

    dataset = open_dataset(imagenet(data, tmp_path))

    labels = read_labels(tmp_path / IMAGENET_LABELS)
    assert (dataset.kind, dataset.num_images, len(labels)) == ("list", 133, 1000)
    assert set(dataset.labels) <= set(labels)
    assert {"crane (134)", "crane (517)"} <= set(labels)
    assert json.loads((data / "imagenet_samples" / "imagenet_class_index.json").read_bytes())["134"][1] == "crane"
