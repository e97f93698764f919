"""Pre-trained weights that were imported on purpose: `<root>/<name>/`, each visible completely or not at all; no torch.

A model published here is never among them: a network that starts from it may have seen the new data's test images.
"""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from modeling.durable import STRICT, decode_json, published_mode, staging_folder, sync, sync_tree, validated
from modeling.errors import ModelFormatError, ModelInUseError, ModelNameError, ModelNotFoundError
from modeling.networks.state_dicts.plain_files import read_plain

WEIGHTS_FILE, RECORD_FILE = "weights.safetensors", "weights.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_MAX_RECORD_BYTES = 1 << 16
_REMOVED = ".removed-"


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """What imported weights are.

    sha256: of `weights.safetensors`. num_classes: outputs of their last layer; None: they have none.
    source: name of the file that they were read from. source_sha256: of its bytes. imported: date, as 2026-11-29.
    """

    architecture: str
    sha256: str
    num_classes: int | None
    source: str
    source_sha256: str
    imported: str
    format_version: int = 1

    __pydantic_config__ = STRICT

    def to_bytes(self) -> bytes:
        """The bytes of `weights.json`."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()


class WeightsStore:
    """The imported weights in one root folder, which several machines may share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def records(self) -> Iterator[tuple[str, WeightsRecord | ModelFormatError]]:
        """The record of each name, sorted by name; the error of one that cannot be read."""
        for name in self.names():
            try:
                yield name, self.record(name)
            except ModelFormatError as err:
                yield name, err

    def names(self) -> list[str]:
        """The names, sorted."""
        entries = self.root.iterdir() if self.root.is_dir() else ()
        return sorted(entry.name for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir())

    def record(self, name: str) -> WeightsRecord:
        """The record of the weights of that name.

        Raises:
            ModelNotFoundError: there are none.
            ModelFormatError: it is damaged.
        """
        if name not in self.names():
            known = ", ".join(self.names()) or "none"
            raise ModelNotFoundError(f"no imported weights {name!r}; there are: {known}")
        path = self.root / name / RECORD_FILE
        record = validated(WeightsRecord, decode_json(read_plain(path, _MAX_RECORD_BYTES), str(path)), str(path))
        if not self.file(name).is_file():
            raise ModelFormatError(f"{self.root / name} is not complete: it has no {WEIGHTS_FILE}")
        return record

    def file(self, name: str) -> Path:
        """The file of the weights of that name."""
        return self.root / name / WEIGHTS_FILE

    def add(self, name: str, record: WeightsRecord, weights: bytes) -> bool:
        """Store weights under a new name; False where the same weights already have that name.

        Raises:
            ModelNameError: the name is not valid.
            ModelInUseError: other weights have that name.
        """
        check_weights_name(name)
        self.root.mkdir(parents=True, exist_ok=True)
        with staging_folder(self.root, ".importing-") as staging:
            (staging / WEIGHTS_FILE).write_bytes(weights)
            (staging / RECORD_FILE).write_bytes(record.to_bytes())
            for path in staging.iterdir():
                path.chmod(0o644)
            staging.chmod(published_mode(self.root))
            sync_tree(staging)
            try:
                staging.rename(self.root / name)  # onto a folder that is not empty this fails
            except OSError:
                if not (self.root / name).exists():
                    raise
                self._check_same(name, record)
                return False
            sync(self.root)
        return True

    def _check_same(self, name: str, record: WeightsRecord) -> None:
        try:
            known = self.record(name)
        except ModelFormatError as err:
            raise ModelInUseError(f"the name {name!r} is taken, by damaged weights; remove them first: {err}") from err
        if known.sha256 != record.sha256:
            raise ModelInUseError(
                f"the name {name!r} is taken, by other weights of {known.architecture} (from {known.source}); give "
                f"another --name, or remove them with `pigeonhole weights remove {name}`"
            )

    def remove(self, name: str) -> None:
        """Remove weights: first their name, then their files. Jobs that were submitted with them keep a copy.

        Raises:
            ModelNotFoundError: there are none of that name.
        """
        if name not in self.names():
            self.record(name)  # raises, with the names that exist
        with staging_folder(self.root, _REMOVED) as trash:
            (self.root / name).rename(trash / name)
            sync(self.root)
            shutil.rmtree(trash / name, ignore_errors=True)


def check_weights_name(name: str) -> str:
    """Return the name if it is valid.

    Raises:
        ModelNameError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise ModelNameError(
            f"weights' name {name!r} must be 1 to 100 of a-z 0-9 . _ - and begin with a letter or digit"
        )
    if is_reserved(name):
        raise ModelNameError(f"the name {name!r} stands for torchvision's weights; give another --name")
    return name


def is_reserved(name: str) -> bool:
    """Whether a name stands for torchvision's weights, which are downloaded."""
    return name == "imagenet" or name.rpartition(".")[2].startswith("IMAGENET1K_")
