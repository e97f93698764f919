"""Reads an export with the program that it is for, and prints [name, label, score] for each image as JSON.

    python tests/readers/read_export.py label-studio tasks.json
    python tests/readers/read_export.py cvat annotations.xml           beside a folder of the images
    python tests/readers/read_export.py coco annotations.json
    python tests/readers/read_export.py coco-labels annotations.json   by datumaro
    python tests/readers/read_export.py ultralytics dataset

Runs in an environment of its own, as the dependencies of these programs do not fit ours; imports nothing of ours.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path


def label_studio(file):
    """The tasks, each validated against the interface beside them."""
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface(Path(f"{file}.config.xml").read_text(encoding="utf-8"))
    interface.validate()
    for task in json.loads(file.read_text(encoding="utf-8")):
        assert interface.validate_task({"data": task["data"]}), task
        [prediction] = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == [], task
        [region] = prediction["result"]
        [label] = region["value"]["choices"]
        yield task["data"]["path"], label, prediction["score"]


def cvat(file):
    """The tags, as the library reads them that CVAT's own import of data sets uses."""
    import datumaro

    dataset = datumaro.Dataset.import_from(str(file), "cvat")
    labels = dataset.categories()[datumaro.AnnotationType.label]
    for item in sorted(dataset, key=lambda item: item.attributes["frame"]):
        [tag] = item.annotations
        yield item.id + Path(item.media.path).suffix, labels[tag.label].name, float(tag.attributes["score"])


def coco(file):
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(sys.stderr):
        document = COCO(str(file))
    for number in document.getImgIds():
        [annotation] = document.loadAnns(document.getAnnIds(imgIds=[number]))
        [category] = document.loadCats([annotation["category_id"]])
        assert number in document.getImgIds(catIds=[category["id"]])
        yield document.imgs[number]["file_name"], category["name"], annotation["score"]


def coco_labels(file):
    import datumaro

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "annotations" / "labels_train.json"
        place.parent.mkdir()
        (Path(folder) / "images").mkdir()
        shutil.copyfile(file, place)
        dataset = datumaro.Dataset.import_from(folder, "coco_labels")
        labels = dataset.categories()[datumaro.AnnotationType.label]
        for item in sorted(dataset, key=lambda item: item.attributes["id"]):
            [annotation] = item.annotations
            name = item.id + Path(item.media.path).suffix
            yield name, labels[annotation.label].name, annotation.attributes["score"]


def ultralytics(folder):
    """The images of both parts, as its classification training opens them."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import ClassificationDataset
    from ultralytics.data.utils import check_cls_dataset

    facts = check_cls_dataset(folder)
    for part in ("train", "val"):
        dataset = ClassificationDataset(facts[part], get_cfg(), augment=False, prefix=part)
        for place, (file, index, *_) in enumerate(dataset.samples):
            assert dataset[place]["img"].shape == (3, 640, 640)
            yield f"{part}/{Path(file).name}", facts["names"][index], None


READERS = {
    "label-studio": label_studio, "cvat": cvat, "coco": coco, "coco-labels": coco_labels, "ultralytics": ultralytics,
}  # fmt: skip

if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        read = [list(facts) for facts in READERS[sys.argv[1]](Path(sys.argv[2]).resolve())]
    print(json.dumps(read))
