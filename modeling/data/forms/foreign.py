"""Recognises the layouts of other tools' data sets, which are not folders of classes, and says what to do with them."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from modeling.data.dataset import TRAIN
from modeling.data.forms.layouts import Looks, part_of
from modeling.names import is_archive, path_to_text

_LIST = "give a list of path,label as .csv"
_SORT = f"sort its images into a folder per class, or {_LIST}"
_IMAGES = {"images", "image", "imgs", "img", "jpegimages", "rgb"}
_NOTES = {
    "labels": "YOLO", "label": "YOLO", "annotations": "COCO or Pascal VOC", "annotation": "COCO or Pascal VOC",
    "annots": "COCO or Pascal VOC", "imagesets": "Pascal VOC", "masks": "image segmentation",
    "mask": "image segmentation", "segmentationclass": "image segmentation", "gt": "image segmentation",
    "groundtruth": "image segmentation", "ground_truth": "image segmentation",
}  # fmt: skip
_CONTAINER = re.compile(
    r"(?:.*[\s_.-])?(?:images?|imgs?|photos?|pictures?|pics|jpe?gs?|pngs?|files|data|raw)(?:[\s_.-].*)?"
)
_LIST_SUFFIXES = {".csv", ".tsv", ".jsonl", ".ndjson", ".xlsx", ".xls"}
_NAMED_FILES = (  # a pattern of names in lower case, and what it shows
    (r"dataset_dict\.json|dataset_infos?\.json|.*\.(parquet|arrow)",
     f"a Hugging Face data set in files that are not read here; save its images, and {_LIST}"),
    (r"metadata\.(csv|jsonl)",
     "a Hugging Face image folder with its labels in a file; make of file_name and the label a list of path,label"),
    (r"_annotations\..*|_classes\.(csv|txt)|_darknet\.labels",
     f"an export of Roboflow for another task; export it as Folder Structure, or {_LIST}"),
    (r"loc_.*\.(csv|txt)",
     "ImageNet as Kaggle has it; give its folder ILSVRC/Data/CLS-LOC/train, whose folders are the classes"),
    (r"val_annotations\.txt", f"Tiny ImageNet, whose val has its labels in a file; give its folder train, or {_LIST}"),
    (r"(instances|captions|person_keypoints)_.*\.json", f"COCO, whose labels are in a file; {_SORT}"),
    (r"(data|dataset)\.ya?ml", f"YOLO for finding objects, whose labels are in text files; {_SORT}"),
    (r".*\.tfrecords?(-.*)?", f"TFRecord files, which are not read here; save its images, and {_LIST}"),
    (r".*\.(npy|npz|h5|hdf5|mat|pkl|lmdb|mdb)", f"arrays, which are not read here; save its images, and {_LIST}"),
)  # fmt: skip
_MOST_ENTRIES = 20_000  # of a folder that are looked at for an error's hint


def foreign_layout(looks: Looks) -> str | None:
    """What the folders of a folder are instead of classes or parts, and what to do; None if they may be either."""
    names = {name.lower() for name in looks.names}
    if {"blobs", "snapshots"} <= names:
        return "a Hugging Face cache; give a folder in snapshots"
    if {"annotations", "data", "imagesets"} <= names:
        return "ImageNet; give its folder Data/CLS-LOC/train, whose folders are the classes"
    parts = [name for name in looks.names if part_of(name) is not None]
    if (kind := _pair(names)) or (parts and (kind := _note(names - {name.lower() for name in parts}))):
        return _described(looks.path, kind)
    for name in parts:
        if kind := _pair({inner.lower() for inner in looks.into(name).folders}):
            return _described(looks.path / name, kind)
    return None


def _pair(names: set[str]) -> str:
    """The kind of a layout with a folder of images beside one that says what is in them."""
    return _note(names) if names & _IMAGES else ""


def _note(names: set[str]) -> str:
    return next((kind for name, kind in _NOTES.items() if name in names), "")


def _described(path: Path, kind: str) -> str:
    names = ", ".join(sorted(path_to_text(entry.name) for entry in path.iterdir() if entry.is_dir()))
    task = "" if kind == "image segmentation" else ", for finding objects"
    return f"{kind}{task} ({names} in {path.name}); {_SORT}"


def are_containers(names: Iterable[str]) -> bool:
    """Whether all folders are named after what lies in them (`images_001`, `photos`), not after a class."""
    return all(_CONTAINER.fullmatch(name.strip().lower()) for name in names)


def hint(path: Path, parts: Mapping[str, int] | None = None) -> str:
    """For the error of a folder that cannot be opened: what it looks like, and what to do; often empty."""
    folders = [path, *(path / name for name in parts or {}), path / "data"]
    files = {folder: _file_names(folder) for folder in folders}
    for pattern, shown in _NAMED_FILES:
        for folder, names in files.items():
            if found := next((name for name in names if re.fullmatch(pattern, name.lower())), None):
                return f"; by {path_to_text(found)}{_inside(folder, path)} it looks like {shown}"
    for folder, names in files.items():
        if found := next(filter(is_archive, names), None):
            return f"; {path_to_text(found)}{_inside(folder, path)} is an archive, which is not read; unpack it first"
    if lists := lists_beside(path):
        return f"; if {lists} beside it holds the labels, give that, with columns path and label"
    return ""


def _inside(folder: Path, path: Path) -> str:
    return "" if folder == path else f" in {folder.name}"


def how_to_label(folder: Path, name: str) -> str:
    """How to give labels to a folder of images without any; `name` is one of them, a path relative to the folder."""
    cell = path_to_text(name)
    if any(char in cell for char in ',;"'):
        cell = '"' + cell.replace('"', '""') + '"'
    return (
        f"put each image into a folder of its class, such as {path_to_text(f'{folder.name}/cat/{Path(name).name}')}, "
        f"or write a list {path_to_text(str(folder / 'labels.csv'))} whose first line is path,label, with a line such "
        f"as {cell},cat for each image, and give that"
    )


def lists_beside(path: Path) -> str:
    """The names of the tables in a folder, the first few; empty if there are none."""
    names = [path_to_text(name) for name in _file_names(path) if Path(name).suffix.lower() in _LIST_SUFFIXES]
    names.sort(key=lambda name: (part_of(Path(name).stem) != TRAIN, name))
    return ", ".join(names[:3])


def _file_names(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            named = (entry.name for _, entry in zip(range(_MOST_ENTRIES), entries, strict=False) if entry.is_file())
            return sorted(name for name in named if not name.startswith("."))
    except OSError:  # a hint is only a hint
        return []
