"""Text files are UTF-8 whatever the locale: read from the source, every call that opens one names its encoding."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("modeling", "orchestrator", "workers", "pigeonhole", "examples")
TEXT_METHODS = ("read_text", "write_text")
OPENERS = ("open", "fdopen")
NOT_FILES = (  # what else has an `open`
    "Image", "os", "JobFolder", "Journal", "HomeRecord", "journal", "_open", "Segment", "server", "_server", "_files",
    "bodies", "lines", "waiters", "_pushes", "self", "opened", "_targets",
)  # fmt: skip
CALLS_WITH_PIPES = ("run", "Popen", "check_output")


def unnamed_encodings(code: str) -> Iterator[int]:
    """Lines that open text without naming its encoding."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and _is_text(node) and not any(key.arg == "encoding" for key in node.keywords):
            yield node.lineno


def _is_text(call: ast.Call) -> bool:
    name, owner = _names(call.func)
    arguments = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
    keywords = {key.arg: getattr(key.value, "value", None) for key in call.keywords}
    if name in TEXT_METHODS:
        return not any(isinstance(arg, ast.Call) for arg in call.args[1:])
    if name in CALLS_WITH_PIPES:
        return keywords.get("text") is True
    is_opener = name in OPENERS and owner not in NOT_FILES
    mode = str(keywords.get("mode") or next((arg for arg in arguments if _is_mode(arg)), "r"))
    return is_opener and "b" not in mode


def _is_mode(argument: object) -> bool:
    return isinstance(argument, str) and 0 < len(argument) <= 3 and set(argument) <= set("rwabxt+")


def _names(function: ast.expr) -> tuple[str, str]:
    """The called name, and that of what it belongs to."""
    if isinstance(function, ast.Attribute):
        owner = function.value
        return function.attr, owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
    return (function.id, "") if isinstance(function, ast.Name) else ("", "")


def test_every_text_file_is_opened_as_what_it_is():
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]

    found = [
        f"{path.relative_to(ROOT)}:{line}" for path in paths for line in unnamed_encodings(path.read_text("utf-8"))
    ]

    assert len(paths) > 100
    assert found == []


@pytest.mark.parametrize(
    ("code", "opens_text"),
    [
        ("path.read_text()", True),
        ("path.open('a')", True),
        ("open(path)", True),
        ("subprocess.run(command, text=True)", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.open('rb')", False),
        ("Image.open(path)", False),
    ],
)
def test_calls_without_an_encoding_are_found(code, opens_text):
    assert bool(list(unnamed_encodings(code))) is opens_text
