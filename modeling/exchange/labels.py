"""The names of a network's outputs, from the files in which people keep them.

JSON: a list of names; an object from numbers to names, from names to numbers, or torchvision's class index; the
`config.json` of timm (`label_names`, `label_descriptions`) or of Hugging Face (`id2label`). Text: one name a line, or
a number and a name. CSV and TSV: a column that numbers the labels from 0 on, and one that names them.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modeling.durable import decode_json
from modeling.errors import DataError
from modeling.names import class_name, label_fault
from modeling.networks.state_dicts.plain_files import few, read_plain

_MAX_BYTES = 64_000_000
_KINDS = (
    'a JSON list of names, an object such as {"0": "cat"}, a config.json, a text file with one name a line, or a CSV'
)
_CONFIG_KEYS = ("label_names", "labels", "id2label")  # timm's, timm's before 2023, Hugging Face's
_NAME_COLUMNS = ("label", "name", "class", "class_name", "classname", "category")
_WORDNET = re.compile(r"n[0-9]{8}")
_NUMBERED = re.compile(r"\s*([0-9]+)\s*[:,;\t ]\s*(\S.*)")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_SHOWN = 10


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels in a file, in the order of the network's outputs.

    Raises:
        DataError: the file cannot be understood, or a label stands there twice.
    """
    data = read_plain(path, _MAX_BYTES, error=DataError)
    text = _decoded(data, path)
    if path.suffix.lower() == ".json" or text.lstrip()[:1] in ("[", "{"):
        labels = _of_json(_json(text, path), path)
    elif path.suffix.lower() in (".csv", ".tsv"):
        try:
            labels = _of_table(text, path)
        except csv.Error as err:
            raise DataError(f"{path}: not a table ({err}); give a number and a label on each line") from err
    else:
        labels = _of_lines(text, path)
    if not labels:
        raise DataError(f"{path} names no labels; labels must be {_KINDS}")
    labels = tuple(class_name(label) for label in labels)
    _check_differ(labels, path)
    if fault := label_fault(labels):
        raise DataError(f"{path}: {fault}")
    return labels


def order_warning(labels: Sequence[str]) -> str | None:
    """A warning about labels that are numbers in the order of text; None if they are not."""
    if not all(_NUMBER.fullmatch(label) for label in labels) or list(labels) != sorted(labels):
        return None
    position, label = next(
        ((place, one) for place, one in enumerate(sorted(labels, key=float)) if one != labels[place]), (0, "")
    )
    if not label:
        return None
    return (
        f"the labels are numbers in the order of text: output {position} is {labels[position]!r}, not {label!r}; "
        "if the network was trained with labels in the order of numbers, sort the file so and import it again"
    )


def numbered(labels: Sequence[str]) -> str:
    """The labels with the numbers of their outputs, on one line: the first ones and the last."""
    shown = [f"{number} {label}" for number, label in enumerate(labels[:_SHOWN])]
    if len(labels) > _SHOWN:
        shown += ["..."] * (len(labels) > _SHOWN + 1) + [f"{len(labels) - 1} {labels[-1]}"]
    return ", ".join(shown)


def _decoded(data: bytes, path: Path) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as err:
        raise DataError(f"{path}: not text in UTF-8 (byte {err.start}); labels must be {_KINDS}") from err


def _check_differ(labels: tuple[str, ...], path: Path) -> None:
    twice = [name for name, count in Counter(labels).items() if count > 1]
    if twice:
        first = [str(number) for number, label in enumerate(labels) if label == twice[0]]
        raise DataError(
            f"{path}: labels must differ, but {few(sorted(twice))} stands there twice "
            f"({twice[0]!r} at {' and '.join(first[:3])}, counted from 0); give each output a name of its own"
        )


# JSON


def _json(text: str, path: Path) -> Any:
    try:
        return decode_json(text, str(path), error=DataError)
    except DataError as err:
        raise DataError(f"{err}; expected {_KINDS}") from err


def _of_json(value: Any, path: Path, *, is_config: bool = True) -> tuple[str, ...]:
    if isinstance(value, list):
        return _distinct([_entry(entry, path) for entry in value])
    if not isinstance(value, dict):
        raise DataError(f"{path}: labels must be {_KINDS}, not {type(value).__name__}")
    config = value | (value["pretrained_cfg"] if isinstance(value.get("pretrained_cfg"), dict) else {})
    for key in _CONFIG_KEYS if is_config else ():
        if isinstance(config.get(key), list | dict):
            return _described(_of_json(config[key], path, is_config=False), config.get("label_descriptions"))
    if value and all(isinstance(number, int) and not isinstance(number, bool) for number in value.values()):
        value = {str(number): name for name, number in value.items()}  # from names to numbers, as data sets have it
    numbers = [str(number) for number in range(len(value))]
    if set(value) != set(numbers):
        what = f"labels must be numbered 0 to {len(value) - 1} without a gap" if value else f"labels must be {_KINDS}"
        raise DataError(f"{path}: {what}, not {few(list(value)) or 'empty'}; of a config.json, {_KEYS} is read")
    return _distinct([_entry(value[number], path) for number in numbers])


_KEYS = " or ".join(_CONFIG_KEYS)


def _entry(value: Any, path: Path) -> tuple[str, str]:
    """A label and its id, which may be empty: a name, a whole number, or torchvision's pair of id and name."""
    match value:
        case bool():
            pass
        case str() if value:
            return value, ""
        case int():
            return str(value), ""
        case [str() as identity, str() as name] if name:
            return name, identity
    raise DataError(f"{path}: {value!r} is not a label; labels must be {_KINDS}")


def _distinct(entries: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The names; where several outputs have the same (ImageNet has two cranes), with their ids."""
    counts = Counter(name for name, _ in entries)
    return tuple(f"{name} ({identity})" if identity and counts[name] > 1 else name for name, identity in entries)


def _described(names: tuple[str, ...], descriptions: Any) -> tuple[str, ...]:
    """The descriptions of names that are WordNet ids, which nobody knows; other names as they are."""
    if not isinstance(descriptions, Mapping) or not all(_WORDNET.fullmatch(name) for name in names):
        return names
    found = [descriptions.get(name) for name in names]
    return _distinct(
        [(text if isinstance(text, str) and text else name, name) for text, name in zip(found, names, strict=True)]
    )


# Text and tables


def _of_lines(text: str, path: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text.rstrip())]
    if "" in lines and lines != [""]:
        raise DataError(f"{path}: line {lines.index('') + 1} is empty; give one label on each line")
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    found = [(match[1], match[2].strip()) for match in matches if match]
    if len(found) == len(lines) and {number for number, _ in found} == {str(number) for number in range(len(found))}:
        return tuple(name for _, name in sorted(found, key=lambda pair: int(pair[0])))
    return tuple(line for line in lines if line)


def _of_table(text: str, path: Path) -> tuple[str, ...]:
    rows = _rows(text)
    if rows and len(rows[0]) == 1:
        names = [row[0] for row in rows]
        return tuple(names[1:] if names[0].lower() in _NAME_COLUMNS else names)
    if len({len(row) for row in rows}) > 1:
        raise DataError(f"{path}: its lines have different numbers of columns; give a number and a label on each line")
    for heading, body in (([], rows), (rows[:1], rows[1:])):
        number = next((column for column in range(len(rows[0])) if _counts_up(body, column)), None) if rows else None
        if number is not None:
            name = _name_column(heading[0] if heading else [], len(rows[0]), number, path)
            return tuple(row[name] for row in sorted(body, key=lambda row: int(row[number])))
    raise DataError(f"{path}: no column numbers the labels from 0 on without a gap; give a number and a label a line")


def _rows(text: str) -> list[list[str]]:
    """The cells of a table, with the separator that cuts every line; one cell a line if none does."""
    for separator in ("\t", ";", ","):
        cells = [
            [cell.strip() for cell in row] for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        ]
        rows = [row for row in cells if any(row)]
        if rows and all(len(row) > 1 for row in rows):
            return rows
    return [[line.strip()] for line in text.splitlines() if line.strip()]


def _counts_up(rows: Sequence[Sequence[str]], column: int) -> bool:
    found = {row[column] for row in rows}
    return bool(rows) and len(found) == len(rows) and found == {str(number) for number in range(len(rows))}


def _name_column(heading: Sequence[str], num_columns: int, number: int, path: Path) -> int:
    others = [column for column in range(num_columns) if column != number]
    if len(others) == 1:
        return others[0]
    named = [column for column in others if heading and heading[column].lower() in _NAME_COLUMNS]
    if not named:
        raise DataError(f"{path}: which of {num_columns} columns names the labels? Keep their number and their name")
    return named[0]
