"""What the headings of a list mean: one set of names for training and for classifying, in any case and with spaces."""

import re
from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache

PATH_NAMES = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "imagepath", "image_file",
    "image_name", "image_filename", "img", "img_path",
)  # fmt: skip
MANIFEST_COLUMNS = frozenset({"path", "status", "label"})
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": PATH_NAMES,
    "label": ("label", "class", "class_name", "category"),
    "part": ("part", "split"),
    "status": ("status",),
    "decision": ("decision",),
    "corrected_label": ("corrected_label",),
}
"""The columns that are read, each with the headings that it may have."""


class ColumnError(ValueError):
    """Two columns that may mean the same."""


def plain_name(heading: str) -> str:
    """A heading as it is compared: `File Name` is `file_name`."""
    return re.sub(r"[\s\-]+", "_", heading.replace("\ufeff", "").strip().lstrip("#").strip().lower())


@lru_cache(maxsize=1024)
def find_columns(headings: tuple[str, ...], wanted: frozenset[str]) -> Mapping[str, int]:
    """The position of each wanted column that there is.

    A column that is called by its first name is preferred in a manifest, and for labels; among other names there must
    be no choice.

    Raises:
        ColumnError: two headings may mean the same column.
    """
    positions = defaultdict(list)
    for position, heading in enumerate(headings):
        positions[plain_name(heading)].append(position)
    found: dict[str, int] = {}
    is_manifest = positions.keys() >= MANIFEST_COLUMNS
    for column, names in COLUMNS.items():
        if column not in wanted:
            continue
        is_plain = column in positions and (is_manifest or column != "path")
        accepted = (column,) if is_plain else names
        candidates = [position for name in accepted for position in positions.get(name, ())]
        if len(candidates) > 1:
            raise ColumnError(_ambiguous(column, [headings[candidate] for candidate in candidates]))
        if candidates:
            found[column] = candidates[0]
    return found


def is_manifest_like(headings: tuple[str, ...]) -> bool:
    """Whether a manifest may have these headings, with others added or removed."""
    return {plain_name(heading) for heading in headings} >= MANIFEST_COLUMNS


def _ambiguous(column: str, headings: list[str]) -> str:
    shown = " and ".join(map(repr, dict.fromkeys(headings)))
    if len(set(map(plain_name, headings))) == 1:
        return f"{len(headings)} columns are called {shown}; keep one of them"
    return f"the columns {shown} may each be the {column}; keep one of them, and rename the others"
