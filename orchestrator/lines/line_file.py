"""A line's settings as operators write them: in a TOML file, and the same keys on the command line.

Durations and sizes are text with a unit (`"500ms"`, `"16MB"`); everything else is as `LineSettings` has it.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from orchestrator.contract.access import explain_os_error
from orchestrator.contract.errors import NotFoundError, UsageError
from orchestrator.contract.lines.quantities import parse_duration_ms, parse_share, parse_size
from orchestrator.contract.lines.settings import LineSettings
from orchestrator.contract.settings_file import content_of


def parse_bins(text: str) -> list[str]:
    """The bins of `BIN[,BIN2]`."""
    return [name.strip() for name in text.split(",")]


def read_line_file(file: Path) -> dict[str, Any]:
    """The values in a TOML file by the names of `LineSettings`; their types and ranges are checked by that.

    Raises NotFoundError where there is no such file, UsageError where it or a value in it cannot be used.
    """
    try:
        values = tomllib.loads(content_of(file, "the file of a line").decode("utf-8-sig"))  # editors may add a mark
    except (FileNotFoundError, NotADirectoryError) as err:
        raise NotFoundError(f"there is no file {str(file)!r}") from err
    except OSError as err:
        raise UsageError(f"the file of a line cannot be read: {explain_os_error(err) or err}") from err
    except (ValueError, RecursionError) as err:
        raise UsageError(f"{str(file)!r} is not TOML: {err}") from err
    return dict(_read_value(f"{str(file)!r}", key, value) for key, value in values.items())


def checked_settings(values: Mapping[str, Any], what: str) -> LineSettings:
    """The settings of these values. Raises UsageError, which names `what`, and the key as operators write it."""
    try:
        return LineSettings.from_json(values, what)
    except UsageError as err:
        told = str(err)
        for name, key in _KEYS_OF_NUMBERS.items():
            told = told.replace(f"{what}: {name}: ", f"{what}: {key}: ", 1)
        raise UsageError(told) from err


def _read_value(file: str, key: str, value: Any) -> tuple[str, Any]:
    """The name in `LineSettings` of a key, and its value."""
    if key == "bins":
        return key, _bins(file, value)
    if key not in _KEYS:
        near = get_close_matches(key, _KEYS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_KEYS)}"
        raise UsageError(f"{file}: there is no key {key!r}; {hint}")
    name, read, example = _KEYS[key]
    if read is None or (name in _NUMBERS and type(value) in (int, float)):
        return name, value
    if not isinstance(value, str):
        raise UsageError(f"{file}: {key}: write a text such as {example}, not {value!r}")
    try:
        return name, read(value)
    except UsageError as err:
        raise UsageError(f"{file}: {key}: {err}") from err


def _bins(file: str, value: Any) -> dict[str, Any]:
    """The bins of each label: a list, or one text as on the command line."""
    if not isinstance(value, Mapping):
        raise UsageError(f'{file}: bins: write a table such as [bins], with a line such as owl = ["3", "4"]')
    for label, bins in value.items():
        if not isinstance(bins, str | list):
            raise UsageError(f'{file}: bins: {label!r}: write a list of bins such as ["3", "4"], not {bins!r}')
    return {label: parse_bins(bins) if isinstance(bins, str) else bins for label, bins in value.items()}


def _seconds(text: str) -> int:
    """Whole seconds, rounded up: what is kept is kept at least so long."""
    return -(-parse_duration_ms(text) // 1000)


# What LineSettings has in another unit than operators write.
_KEYS_OF_NUMBERS = {"deadline_ms": "deadline (ms)", "keep_s": "keep (s)", "keep_images_s": "keep_images (s)"}
# Key: the name in LineSettings, how a text is read (None: the value is taken as it is), an example.
_KEYS: dict[str, tuple[str, Callable[[str], Any] | None, str]] = {
    **{name: (name, None, "") for name in (field.name for field in fields(LineSettings))},
    "max_bytes": ("max_bytes", parse_size, '"256MB"'),
    "max_image_bytes": ("max_image_bytes", parse_size, '"16MB"'),
    "keep_images_bytes": ("keep_images_bytes", parse_size, '"1GB"'),
    "keep_share": ("keep_share", parse_share, '"1%"'),
    "deadline": ("deadline_ms", parse_duration_ms, '"500ms"'),
    "keep": ("keep_s", _seconds, '"7d"'),
    "keep_images": ("keep_images_s", _seconds, '"7d"'),
}
for _name in _KEYS_OF_NUMBERS:
    del _KEYS[_name]
_NUMBERS = {"max_bytes", "max_image_bytes", "keep_images_bytes", "keep_share"}
