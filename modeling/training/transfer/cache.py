"""A cache of features on disk, keyed by the images' content: another run computes only the features of new images.

    <folder>/<key of the backbone>/<sha256 of the file>.features

Each file contains some thousand images: a line of JSON (digests, number of features), then float32 rows. Its name is
the digest of its content, so a damaged file is detected, removed and computed again, and concurrent processes never
write to the same file. Every write removes the least recently used files beyond a size limit. The folder may be deleted
at any time.
"""

# Shapes: N images of a selection, M images that are saved or not in the cache, F features.
import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modeling.data.images import Images, Indices
from modeling.images.progress import Emit
from modeling.training.transfer.backbone import Backbone
from modeling.training.transfer.features import Extractor, Features, extract_features

DEFAULT_LIMIT_BYTES = 4 << 30  # 800,000 images of 1,280 features
_SUFFIX = ".features"
_FORMAT = 1
_STALE_S = 24 * 3600  # writing a file never takes a day


class FeatureCache:
    """Features in one folder, which several processes may use concurrently."""

    def __init__(self, folder: Path, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def load(self, key: str, digests_N: Sequence[str], num_features: int) -> tuple[Features, NDArray[np.bool_]]:
        """Features NF of the images with these digests, and a mask of the known ones; other rows are zero.

        key: `Backbone.key()`. digests_N: sha256 of each image's bytes, hexadecimal.
        """
        features_NF = np.zeros((len(digests_N), num_features), dtype=np.float32)
        known_N = np.zeros(len(digests_N), dtype=np.bool_)
        rows: dict[str, list[int]] = {}
        for row, digest in enumerate(digests_N):
            rows.setdefault(digest, []).append(row)
        for path in sorted((self._folder / key).glob("*" + _SUFFIX)):
            for digest, features_F in _read(path, num_features):
                for row in rows.pop(digest, ()):
                    features_NF[row] = features_F
                    known_N[row] = True
            if not rows:
                break
        return features_NF, known_N

    def save(self, key: str, digests_M: Sequence[str], features_MF: Features) -> None:
        """Save these images' features atomically.

        Raises:
            OSError: the disk is full or another write error occurs.
        """
        head = {"format": _FORMAT, "num_features": features_MF.shape[1], "digests": list(digests_M)}
        data = json.dumps(head).encode() + b"\n" + np.ascontiguousarray(features_MF, dtype="<f4").tobytes()
        path = self._folder / key / (hashlib.sha256(data).hexdigest() + _SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            temporary.replace(path)  # not synced, unlike modeling.durable: its name reveals a damaged file
        finally:
            temporary.unlink(missing_ok=True)
        self._prune(keep=path)

    def _prune(self, keep: Path) -> None:
        """Remove the least recently used files beyond the limit, and old temporary files of killed writers."""
        found: list[tuple[float, int, Path]] = []
        for left in self._folder.glob("*/.*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > _STALE_S:
                    left.unlink()
        for path in self._folder.glob("*/*" + _SUFFIX):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue  # another process removed it
            found.append((facts.st_mtime, facts.st_size, path))
        excess = sum(size for _, size, _ in found) - self._limit_bytes
        for _, size, path in sorted(found):
            if excess <= 0:
                return
            if path != keep:
                path.unlink(missing_ok=True)
                excess -= size


def _read(path: Path, num_features: int) -> Iterator[tuple[str, Features]]:
    """Digest and features of each image in a file; a damaged file is removed and yields nothing."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return  # pruned by another process
    head, _, rows = data.partition(b"\n")
    if hashlib.sha256(data).hexdigest() != path.name.removesuffix(_SUFFIX):
        with contextlib.suppress(PermissionError):  # another user's: the damaged file stays, and is ignored each time
            path.unlink(missing_ok=True)
        return
    facts = json.loads(head)  # not by pydantic: the file's name, its digest, has proved what wrote it
    if facts["format"] != _FORMAT or facts["num_features"] != num_features:
        return
    with contextlib.suppress(FileNotFoundError, PermissionError):  # just pruned, or another user's
        os.utime(path)  # marks it as recently used
    yield from zip(facts["digests"], np.frombuffer(rows, dtype="<f4").reshape(-1, num_features), strict=True)


_SAVE_EVERY = 4096  # images; an interrupted run loses at most this many


@dataclass(frozen=True, slots=True, eq=False)
class ImageSelection:
    """Images whose features are requested: the source, their indices in it, and the sha256 of their bytes.

    lost: which of some images the source could not read; their features are another image's, and are not saved.
    """

    images: Images
    indices_N: Indices
    digests_N: Sequence[str]
    lost: Callable[[Indices], NDArray[np.bool_]] = lambda indices: np.zeros(len(indices), dtype=bool)


def cached_features(backbone: Backbone, selection: ImageSelection, cache: FeatureCache | None, emit: Emit) -> Features:
    """Features NF of the selected images, in order; computes missing ones and saves them to the cache.

    If the cache cannot be written, a note is emitted, and the next run computes the features again.

    Events: `{"event": "features", "num_done", "num_images"}`; images from the cache count as done.

    Raises:
        DataError: an image cannot be read.
    """
    key, num_images = backbone.key(), len(selection.indices_N)
    features_NF = np.zeros((num_images, backbone.num_features), dtype=np.float32)
    known_N = np.zeros(num_images, dtype=np.bool_)
    if cache is not None:
        features_NF, known_N = cache.load(key, selection.digests_N, backbone.num_features)
    num_known = int(known_N.sum())
    emit({"event": "features", "num_done": num_known, "num_images": num_images})
    if num_known == num_images:
        return features_NF
    extractor = Extractor(backbone)
    missing_M = np.flatnonzero(~known_N)
    for start in range(0, len(missing_M), _SAVE_EVERY):
        rows = missing_M[start : start + _SAVE_EVERY]

        def count(event: dict[str, Any], num_before: int = num_known + start) -> None:
            emit({**event, "num_done": num_before + event["num_done"], "num_images": num_images})

        features_NF[rows] = extract_features(extractor, selection.images, selection.indices_N[rows], count)
        if cache is not None and len(rows := rows[~selection.lost(selection.indices_N[rows])]):
            _save(cache, key, [selection.digests_N[row] for row in rows], features_NF[rows], emit)
    return features_NF


def _save(cache: FeatureCache, key: str, digests_M: list[str], features_MF: Features, emit: Emit) -> None:
    try:
        cache.save(key, digests_M, features_MF)
    except OSError as err:
        emit({"event": "note", "text": f"the features cannot be cached for the next run: {err}"})
