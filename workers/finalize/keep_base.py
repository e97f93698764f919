"""Keeps the manifest that a merged one takes the place of, as `OUT.1`, or under the number after the last one there.

Each step may be done twice: names that an earlier finalizer of the job gave have the last number, and are found again
by what they hold. Nothing is renamed and nothing removed, so that the earlier manifest is whole under its own name
until the new one is there. However many manifests were kept, only those of the last number are looked into.
"""

import os
import re
from pathlib import Path

from modeling.durable import sync
from orchestrator.contract.errors import IntegrityError
from orchestrator.contract.jobs.base import BaseFiles, give_name, sha256_of

_MOST = 100_000  # a higher number, such as a date, was not given here


def keep_base(kept: BaseFiles, output: Path, *, temporary: Path) -> Path:
    """Give the base's three files their names beside `output`; returns that of the manifest. Durable.

    kept: as the job folder has them. temporary: for copies, where the file system knows no second names.
    """
    last = _last_number(output)
    named = _named(output, last)
    if last == 0 or not _are_free_or_same(named, kept):
        if last == _MOST:
            raise IntegrityError(f"beside {output} there is an earlier manifest of number {last}; move it away")
        named = _named(output, last + 1)
    for path, name in zip(kept.all(), named.all(), strict=True):
        give_name(path, name, temporary=temporary)
    sync(output.parent)
    return named.manifest


def _named(output: Path, number: int) -> BaseFiles:
    return BaseFiles.beside(output.with_name(f"{output.name}.{number}"))


def _last_number(output: Path) -> int:
    """The highest number that a file of a kept manifest has; 0 where there is none."""
    start = f"{output.name}.1"
    endings = "|".join(re.escape(path.name.removeprefix(start)) for path in _named(output, 1).all())
    numbered = re.compile(re.escape(output.name) + rf"\.([1-9][0-9]*)(?:{endings})")
    numbers = (int(match[1]) for name in os.listdir(output.parent) if (match := numbered.fullmatch(name)))
    return max((number for number in numbers if number <= _MOST), default=0)


def _are_free_or_same(named: BaseFiles, kept: BaseFiles) -> bool:
    """Whether nothing has these names but what is to have them. Only files of equal size are read, small ones first."""
    there = [(name, path) for name, path in zip(named.all(), kept.all(), strict=True) if os.path.lexists(name)]
    if not all(name.is_file() and name.stat().st_size == path.stat().st_size for name, path in there):
        return False
    there.sort(key=lambda pair: pair[1].stat().st_size)
    return all(name.samefile(path) or sha256_of(name) == sha256_of(path) for name, path in there)
