"""Every step that the docs name is in the code, where faults strike, and the other way round."""

import ast
import importlib.util
from functools import cache
from pathlib import Path

import pytest

from tests.support.steps.injected import INNER
from tests.support.steps.step import Step
from tests.support.steps.table import STEPS, TABLES, rows_of_docs

ROOT = Path(__file__).parents[1]


def test_every_row_of_a_table_of_steps_has_a_name_and_every_name_is_a_step_of_the_table():
    rows = list(rows_of_docs())

    assert {heading for heading, _, _ in rows} == {heading for tables in TABLES.values() for heading in tables}
    assert [row for _, row, names in rows if not names] == []
    named = [name for _, _, names in rows for name in names]
    assert sorted(named) == sorted(STEPS)


@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
def test_a_step_is_a_call_that_exists(step: Step):
    module, _, path = step.call.partition(":")
    parameters = _parameters(module, path)

    assert set(step.arguments) <= set(parameters)
    assert step.inner in (None, *INNER)


@cache
def _module(name: str) -> ast.Module:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse(Path(spec.origin).read_text())


def _parameters(module: str, path: str) -> list[str]:
    """The parameters of a function, read from the source: importing every module would take seconds."""
    body = _module(module).body
    *outer, last = path.split(".")
    for name in outer:
        [owner] = [node for node in body if isinstance(node, ast.ClassDef) and node.name == name]
        body = owner.body
    found = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == last]
    assert len(found) == 1, f"{module} has {len(found)} functions {path}"
    arguments = found[0].args
    return [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
