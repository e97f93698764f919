"""Aliases of a model: movable names for its versions, stored in one small file beside them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from modeling.durable import STRICT, decode_json, replace_durably, validated
from modeling.errors import ModelFormatError, ModelNameError

ALIASES_FILE = "aliases.json"
FORMAT_VERSION = 1
LATEST = "latest"  # always the newest version; cannot be set
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,49}")


def is_alias(text: str) -> bool:
    """Whether this is a valid alias."""
    return text != LATEST and _ALIAS.fullmatch(text) is not None


def check_alias(alias: str) -> str:
    """Return the alias if it is valid.

    Raises:
        ModelNameError: not lower-case letters, digits, dashes and underscores, too long, or `latest`.
    """
    if alias == LATEST:
        raise ModelNameError(f"alias {LATEST!r} always means the newest version; choose another name")
    if not is_alias(alias):
        raise ModelNameError(f"alias {alias!r} must be 1 to 50 of a-z 0-9 _ - and begin with a letter")
    return alias


@dataclass(frozen=True, slots=True)
class _AliasesFile:
    """What the file holds."""

    format_version: Literal[1]
    aliases: dict[Annotated[str, AfterValidator(check_alias)], Annotated[int, Field(ge=1)]]

    __pydantic_config__ = STRICT


def read_aliases(folder: Path) -> dict[str, int]:
    """The version number behind each alias of the model in `folder`, by name.

    Raises:
        ModelFormatError: the file is damaged, or of an unknown format.
    """
    path = folder / ALIASES_FILE
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    try:
        stored = validated(_AliasesFile, decode_json(data, str(path)), str(path))
    except ModelFormatError as err:
        raise ModelFormatError(f"{err}; remove it and set the aliases again") from err
    return dict(sorted(stored.aliases.items()))


def write_aliases(folder: Path, aliases: dict[str, int]) -> None:
    """Replace the aliases of the model in `folder`; the caller holds the model's lock."""
    value = {"format_version": FORMAT_VERSION, "aliases": dict(sorted(aliases.items()))}
    replace_durably(folder / ALIASES_FILE, (json.dumps(value, indent=2) + "\n").encode())
