"""What `benchmarks.outputs` keeps of a published file, and how two such collections differ.

A file is kept as the sha256 of its bytes, with its lines where it is text, and the document where it is JSON, so that
a difference can be shown. What cannot be the same bytes in two runs is brought to a form that is: documents lose the
keys of VOLATILE, tables the columns of VOLATILE_COLUMNS, and ONNX files what torch's exporter says of the code that it
traced. Where another output names the digest of such a file, `Collection.same` puts the digest of this form there.
"""

import csv
import difflib
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import onnx

Output = dict[str, Any]
"""`sha256`, with `lines` where it is text, or `document` where it is JSON."""

VOLATILE: Mapping[str, str] = {  # key at any depth of a document: why it is left out
    "job": "a job's id holds its date and a random number",
    "timings": "of a summary: when the job ran, seconds and images/s by stage",
    "workers": "of a summary: host name and process id",
    "created": "of a model: when it was published",
    "size_bytes": "of a version folder with the digits of history.csv's seconds, or an ONNX file with stack traces",
    "elapsed_s": "of `classify --plan`: seconds",
    "images_per_sec": "of `classify --plan`: throughput",
    "stage_seconds": "of `classify --plan`: seconds",
    "stage_images_per_sec": "of `classify --plan`: throughput",
    "bound": "of `classify --plan`: the stage that took longest",
    "expected_s": "of `classify --plan`: seconds",
}
VOLATILE_COLUMNS: Mapping[str, str] = {  # of a CSV file: why it is left out
    "seconds": "of history.csv: how long an epoch took",
    "images_per_sec": "of history.csv: throughput",
}
_TEXT = {".csv", ".jsonl", ".txt", ".md"}
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_ABSENT = "(absent)"


class Collection:
    """Outputs by name, as they are gathered."""

    def __init__(self) -> None:
        self.outputs: dict[str, Output] = {}
        self._same: dict[str, str] = {}

    def add_json(self, name: str, content: bytes) -> None:
        """Keep a JSON document: its bytes, or, where parts are left out, those of the rest in the same order."""
        content = self._rename(content)
        whole = json.loads(content)
        document = without_volatile(whole)
        form = content if document == whole else json.dumps(document).encode()
        self.outputs[name] = {"sha256": _sha256(form), "document": document}

    def add_folder(self, name: str, folder: Path) -> None:
        """Keep every file of a folder; those that others name by their digest come first."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for path in sorted(files, key=lambda path: (path.suffix != ".onnx", path.name != "model.json")):
            self.add_file(f"{name}/{path.relative_to(folder)}", path)

    def add_file(self, name: str, path: Path) -> None:
        """Keep a file, in the form that suits it."""
        content = path.read_bytes()
        if path.suffix == ".onnx":
            same = without_traces(content)
            self.same(content, same)
            self.outputs[name] = {"sha256": _sha256(same)}
        elif path.suffix == ".html":
            content = self._rename(content)
            self.outputs[name] = {"sha256": _sha256(content)}
            for part, lines in read_page(content.decode()).items():
                self.outputs[f"{name}: {part}"] = {"sha256": _sha256("\n".join(lines).encode()), "lines": lines}
        elif path.suffix == ".json":
            self.same(content, self._rename(content))
            self.add_json(name, content)
        elif path.suffix in _TEXT:
            content = without_timings(content) if path.name == "history.csv" else self._rename(content)
            lines = content.decode("utf-8", "backslashreplace").split("\n")
            self.outputs[name] = {"sha256": _sha256(content), "lines": lines}
        else:
            self.outputs[name] = {"sha256": _sha256(content)}

    def same(self, content: bytes, form: bytes) -> None:
        """Take `form` for `content` wherever the digest of `content` is named from now on."""
        if content != form:
            self._same[_sha256(content)] = _sha256(form)

    def _rename(self, content: bytes) -> bytes:
        for digest, same in self._same.items():
            content = content.replace(digest.encode(), same.encode())
        return content


def without_volatile(value: Any) -> Any:
    """A JSON value without what differs between two runs of the same code."""
    if isinstance(value, dict):
        return {key: without_volatile(each) for key, each in value.items() if key not in VOLATILE}
    return [without_volatile(each) for each in value] if isinstance(value, list) else value


def without_traces(content: bytes) -> bytes:
    """An ONNX file without what torch's exporter says of the code it traced: paths, line numbers, names of modules.

    What the file computes, its names, weights and the metadata of the model stay.
    """
    model = onnx.load_from_string(content)
    graph = model.graph
    ends = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    within = (part for function in model.functions for part in (function, *function.node))
    for part in (graph, *graph.node, *ends, *within):
        del part.metadata_props[:]
        part.ClearField("doc_string")
    form: bytes = model.SerializeToString(deterministic=True)
    return form


def without_timings(content: bytes) -> bytes:
    """A CSV table without VOLATILE_COLUMNS."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    kept = [at for at, column in enumerate(rows[0]) if column not in VOLATILE_COLUMNS]
    return "\n".join(",".join(row[at] for at in kept) for row in rows).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Page(HTMLParser):
    """What a reader of a report sees: its text, with that of pictures, and the pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.pictures: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_style = tag == "style"
        for name, value in attrs:
            if name in ("alt", "title", "aria-label") and value:
                self.text.append(value)
            elif name in ("src", "srcset") and value:
                self.pictures.append(_sha256(value.encode()))

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False

    def handle_data(self, data: str) -> None:
        if data.strip() and not self._in_style:
            self.text.append(" ".join(data.split()))


def read_page(content: str) -> dict[str, list[str]]:
    """The text, the figures and the pictures of a report, each in the order of the page."""
    page = _Page()
    page.feed(content)
    figures = [number for text in page.text for number in _NUMBER.findall(text)]
    return {"text": page.text, "figures": figures, "pictures": page.pictures}


# Comparing


def compare(before: Mapping[str, Output], after: Mapping[str, Output]) -> Iterator[str]:
    """A line for each difference."""
    for name in sorted(before.keys() | after.keys()):
        if name not in after or name not in before:
            yield f"{name}: only {'before' if name in before else 'after'}"
        elif before[name] != after[name]:
            yield from (f"{name}: {line}" for line in _differences(before[name], after[name]))


def _differences(before: Output, after: Output) -> list[str]:
    found: list[str] = []
    if "document" in before and "document" in after:
        old, new = dict(_leaves(before["document"])), dict(_leaves(after["document"]))
        keys = [*old, *(key for key in new if key not in old)]
        pairs = [(key, old.get(key, _ABSENT), new.get(key, _ABSENT)) for key in keys]
        found = [f"{key}: {then} -> {now}" for key, then, now in pairs if then != now]
    elif "lines" in before and "lines" in after:
        found = list(_changed_lines(before["lines"], after["lines"]))
    return found or [f"sha256 {before['sha256']} -> {after['sha256']}"]


def _changed_lines(before: list[str], after: list[str]) -> Iterator[str]:
    changes = difflib.unified_diff(before, after, n=0, lineterm="")
    yield from (change for change in changes if not change.startswith(("---", "+++")))


def _leaves(value: Any, at: str = "") -> Iterable[tuple[str, str]]:
    """Every leaf of a JSON value as JSON, by its path; an empty list or object is a leaf."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [leaf for key, each in pairs for leaf in _leaves(each, f"{at}.{key}" if at else str(key))]
    return inner or [(at or "(whole)", json.dumps(value, ensure_ascii=False))]
