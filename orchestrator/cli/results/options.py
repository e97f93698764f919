"""Options of several commands below `results`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.output import print_message
from orchestrator.cli.parameters import Parsed
from orchestrator.jobs.where import Where, all_of, parse_where

if TYPE_CHECKING:
    from orchestrator.jobs.results import Published

F = TypeVar("F", bound=Callable[..., Any])


def where_option(function: F) -> F:
    """The --where option; the command gets a `Where`, or None."""
    return click.option(
        "--where", multiple=True, type=Parsed("EXPR", parse_where), callback=_joined,
        help="Only rows that fit an expression, such as decision=review or 'score<0.6 and path~march' (docs/after.md); "
        "repeated: all must fit.",
    )(function)  # fmt: skip


def _joined(ctx: click.Context, param: click.Parameter, wheres: tuple[Where, ...]) -> Where | None:
    return all_of(wheres)


def warn_of_changes(published: "Published") -> None:
    """Print a message where the manifest is not as its job wrote it: what follows is said of the rows that it has."""
    if not published.is_unchanged():
        name = published.manifest
        print_message(
            f"{name} was changed since its job wrote it; `pigeonhole results verify` says how", color="yellow"
        )
