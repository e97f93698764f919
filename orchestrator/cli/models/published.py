"""`pigeonhole models list` and `show`."""

from collections.abc import Mapping

import click

from modeling.errors import ModelFormatError
from modeling.store import ModelStore
from orchestrator.cli.output import json_option, print_json, print_table, say
from orchestrator.contract.settings import get_settings

LABELS_SHOWN = 20


@click.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List every version of every model.

    \b
    Example:
      pigeonhole models list
    """
    store = ModelStore(get_settings().models)
    versions = []
    for version in store.list():
        try:
            versions.append((version, store.card(version.ref)))
        except ModelFormatError as err:
            say(f"cannot read {version.ref}: {err}", color="yellow")
    if as_json:
        print_json(
            [
                {
                    "model": version.ref,
                    "digest": version.digest,
                    "architecture": card.architecture,
                    "num_labels": len(card.labels),
                    "metrics": card.metrics,
                }
                for version, card in versions
            ]
        )
        return
    if not versions:
        say("no models; `pigeonhole train` publishes them")
        return
    print_table(
        ("model", "architecture", "labels", "test accuracy", "digest"),
        [
            (version.ref, card.architecture, len(card.labels), _percent(card.metrics), version.digest[:12])
            for version, card in versions
        ],
    )


@click.command("show")
@click.argument("model")
@json_option
def show_model(model: str, as_json: bool) -> None:
    """Show what MODEL is and how it was made.

    \b
    Example:
      pigeonhole models show birds@2 --json
    """
    store = ModelStore(get_settings().models)
    version = store.resolve(model)
    card = store.card(version.ref)
    facts = {"model": version.ref, "digest": version.digest, "path": str(version.path), **card.to_json()}
    if as_json:
        print_json(facts)
        return
    more = ", ..." if len(card.labels) > LABELS_SHOWN else ""
    facts["labels"] = f"{len(card.labels)}: {', '.join(card.labels[:LABELS_SHOWN])}{more}"
    _print_facts(facts)


def _print_facts(facts: Mapping[str, object], indent: int = 0) -> None:
    """One fact a line; those within another stand below it, further in."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            click.echo(f"{'':{indent}}{name}")
            _print_facts(value, indent + 2)
        else:
            click.echo(f"{'':{indent}}{name:{26 - indent}} {value}")


def _percent(metrics: Mapping[str, float]) -> str:
    accuracy = metrics.get("test_accuracy")
    return f"{accuracy:.4f}" if isinstance(accuracy, float) else "-"
