"""Aliases of a model: movable names for its versions, stored in one small file beside them."""

import json
import re
from pathlib import Path

from modeling.durable import replace_durably
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


def read_aliases(folder: Path) -> dict[str, int]:
    """The version number behind each alias of the model in `folder`, by name.

    Raises:
        ModelFormatError: the file is damaged, or of an unknown format.
    """
    path = folder / ALIASES_FILE
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (ValueError, RecursionError) as err:
        raise ModelFormatError(f"{path}: not JSON ({err}); remove it and set the aliases again") from err
    aliases = value.get("aliases") if isinstance(value, dict) else None
    if not isinstance(aliases, dict) or value.get("format_version") != FORMAT_VERSION:
        raise ModelFormatError(f"{path}: no aliases of format {FORMAT_VERSION}; remove it and set them again")
    for alias, number in aliases.items():
        if not is_alias(alias) or type(number) is not int or number < 1:
            raise ModelFormatError(
                f"{path}: {alias!r} cannot stand for {number!r}; remove it and set the aliases again"
            )
    return dict(sorted(aliases.items()))


def write_aliases(folder: Path, aliases: dict[str, int]) -> None:
    """Replace the aliases of the model in `folder`; the caller holds the model's lock."""
    value = {"format_version": FORMAT_VERSION, "aliases": dict(sorted(aliases.items()))}
    replace_durably(folder / ALIASES_FILE, (json.dumps(value, indent=2) + "\n").encode())
