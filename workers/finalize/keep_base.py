"""Keeps the manifest that a merged one takes the place of, as `OUT.1`, or the next number that is free.

Each step may be done twice: names that an earlier finalizer of the job gave are found again by what they hold. Nothing
is renamed and nothing removed, so that the earlier manifest is whole under its own name until the new one is there.
"""

import itertools
import os
from pathlib import Path

from modeling.durable import sync
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.base import BaseFiles, give_name, sha256_of

_MOST = 100_000  # kept manifests of one output


def keep_base(kept: BaseFiles, output: Path, *, temporary: Path) -> Path:
    """Give the base's three files their names beside `output`; returns that of the manifest. Durable.

    kept: as the job folder has them. temporary: for copies, where the file system knows no second names.
    """
    for number in itertools.count(1):
        named = BaseFiles.beside(output.with_name(f"{output.name}.{number}"))
        if all(_is_free_or_same(name, path) for path, name in zip(kept.all(), named.all(), strict=True)):
            break
        if number == _MOST:
            raise IntegrityError(f"{output} has {number} earlier manifests beside it; move some away")
    for path, name in zip(kept.all(), named.all(), strict=True):
        give_name(path, name, temporary=temporary)
    sync(output.parent)
    return named.manifest


def _is_free_or_same(name: Path, path: Path) -> bool:
    if not os.path.lexists(name):
        return True
    return name.is_file() and name.stat().st_size == path.stat().st_size and sha256_of(name) == sha256_of(path)
