"""The paths of docs/architecture.md against the code: each list is short, and what it names exists and is called."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
MOST_CALLS = 25  # of one path
STRICT = ("An image, from `classify` to its row", "A training", "An evaluation")  # each step is one checked call

_LIST = re.compile(r"^### (.+)\n\n((?:\d+\. .*\n)+)", re.MULTILINE)
_CALL = re.compile(r"\d+\. (?:\*[^*]+:\* )?`([\w.]+)` → `([\w.]+)`(?: \(.*\))?(?:: [^→]*)?")
_NAME = re.compile(r"`([A-Za-z_][\w.]*)`")


class Place(NamedTuple):
    """Where a name leads: a module, and what it defines (empty: the module itself)."""

    module: str
    defined: str


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path
        for package in ("modeling", "orchestrator", "workers")
        for path in (ROOT / package).rglob("*.py")
    }


@cache
def definitions(module: str) -> frozenset[str]:
    """The functions and classes of a module, and the methods of these as `Class.method`."""
    return frozenset(_defined(ast.parse(modules()[module].read_text()).body))


def _defined(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from _defined(node.body, f"{node.name}.")


def places(name: str) -> set[Place]:
    """All that a name can stand for: the end of a module's name, of a definition's name, or of both together."""
    parts = name.split(".")
    found = {Place(module, "") for module in modules() if f".{module}".endswith(f".{name}")}
    for number in range(len(parts)):
        above, defined = ".".join(parts[:number]), ".".join(parts[number:])
        found |= {
            Place(module, own)
            for module in modules()
            if not above or f".{module}".endswith(f".{above}")
            for own in definitions(module)
            if own == defined or (not above and own.endswith(f".{defined}"))
        }
    return found


def fault_of(step: str) -> str:
    """What is wrong with a step that is one call across modules; empty if nothing is."""
    call = _CALL.fullmatch(step)
    if call is None:
        return "not one `caller` → `callee`"
    callers, callees = places(call[1]), places(call[2])
    if len(callers) != 1 or len(callees) != 1:
        return f"not one place each: {callers or call[1]} and {callees or call[2]}"
    (caller,), (callee,) = callers, callees
    if not callee.defined or caller.module == callee.module:
        return "no call of another module's function"
    own_name = callee.defined.rpartition(".")[2]
    if not re.search(rf"\b{own_name}\b", modules()[caller.module].read_text()):
        return f"{caller.module} does not mention {own_name}"
    return ""


LISTS = {found[1]: found[2].splitlines() for found in _LIST.finditer((ROOT / "docs/architecture.md").read_text())}


@pytest.mark.parametrize("title", LISTS)
def test_a_path_has_few_calls_and_names_what_exists(title):
    steps = LISTS[title]

    assert max(len(steps), "".join(steps).count("→")) <= MOST_CALLS
    assert [name for step in steps for name in _NAME.findall(step) if not places(name)] == []


@pytest.mark.parametrize("title", STRICT)
def test_each_step_of_a_path_is_one_call_that_the_code_makes(title):
    assert {step: fault for step in LISTS[title] if (fault := fault_of(step))} == {}


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("1. `cli.classify` → `jobs.prepare.prepare`: checked once", ""),
        ("2. *worker:* `workers.turns` → `classify.slice.classify_slice`", ""),
        ("3. `cli.classify` → `jobs.prepare.prepare` → `jobs.pinned.pin_model`", "not one `caller`"),
        ("4. `cli.classify` → `jobs.prepare.prepared`", "not one place"),
        ("5. `classify.slice` → `predict`", "not one place"),
        ("6. `jobs.pinned` → `jobs.pinned.pin_model`", "no call of another"),
        ("7. `cli.classify` → `jobs.pinned.pin_model`", "orchestrator.cli.classify does not mention pin_model"),
    ],
)
def test_a_step_that_the_code_does_not_take_is_found_out(step, fault):
    assert fault_of(step).startswith(fault)
    assert bool(fault_of(step)) == bool(fault)
