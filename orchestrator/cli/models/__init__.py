"""`pigeonhole models ...`."""

import click

from orchestrator.cli.lazy import Entry, LazyGroup

COMMANDS = {
    "list": Entry("models.published:list_models", "List every version of every model."),
    "show": Entry("models.published:show_model", "Show what a model is and how it was made."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def models() -> None:
    """Published models."""
