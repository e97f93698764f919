"""All named steps, and the tables of the docs that name them."""

import re
from collections.abc import Iterator
from pathlib import Path

from tests.support.steps import jobs, operators, pushed, sorting, trainings
from tests.support.steps.step import Step

STEPS: dict[str, Step] = {
    step.name: step for step in (*jobs.ALL, *operators.ALL, *trainings.ALL, *sorting.ALL, *pushed.ALL)
}

# The short names of the tables, by the headings they stand under.
TABLES = {
    "docs/job_lifecycle.md": {
        "Submitting a classify job": "submit",
        "One shard": "shard",
        "Ending a classify job": "end",
        "A merge": "merge",
        "Resuming": "resume",
        "Training": "train",
        "Evaluation": "evaluate",
        "Removing a model": "remove",
        "Pruning": "prune",
    },
    "docs/after.md": {"The journal": "sort", "What unsort promises": "unsort"},
    "docs/hot_folder.md": {"What a kill leads to": "hot_folder"},
    "docs/lines.md": {"What a kill leads to": "line"},
}
_ROOT = Path(__file__).resolve().parents[3]


def steps_of(*tables: str) -> list[Step]:
    """The steps of these tables, in order."""
    return [step for step in STEPS.values() if step.table in tables]


def rows_of_docs() -> Iterator[tuple[str, str, list[str]]]:
    """Of every row of every table of steps: the heading above it, the row, the names of steps in its first column.

    A table of steps begins with a column `step`.
    """
    for name in TABLES:
        heading, in_table = "", False
        for line in (_ROOT / name).read_text().splitlines():
            if line.startswith("#"):
                heading = line.lstrip("# ")
            if not line.startswith("|"):
                in_table = False
            elif re.match(r"\|\s*step\s*\|", line):
                in_table = True
            elif in_table and not line.startswith("|---"):
                yield heading, line, [f"{TABLES[name].get(heading, '?')}.{step}" for step in _names(line)]


def _names(row: str) -> list[str]:
    return re.findall(r"`([^`]+)`", row.split("|")[1])
