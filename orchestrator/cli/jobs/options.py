"""Options of `pigeonhole jobs` alone and of `jobs list`; imports little, so that help is fast."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from orchestrator.cli.output import json_option

F = TypeVar("F", bound=Callable[..., Any])


def list_options(command: F) -> F:
    limit = click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Jobs to show.")
    active = click.option("--active", is_flag=True, help="Only jobs that have not ended.")
    return limit(active(json_option(command)))
