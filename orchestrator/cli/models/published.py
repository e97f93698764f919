"""`pigeonhole models list` and `show`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from modeling.errors import ModelFormatError
from modeling.metrics.verdict import ON_AVERAGE
from orchestrator.cli.output import json_option, print_json, print_line, print_message, print_table, size_text

if TYPE_CHECKING:
    from modeling.metrics.calibration import Calibration
    from modeling.registry.card import ModelCard

LABELS_SHOWN = 20
UNCALIBRATED = "none: scores are the softmax, and there are no decisions"


@click.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List every version of every model.

    TO LOOK AT is the share of images that are not accepted, that is to review or rejected, as measured by the
    calibration.

    \b
    Example:
      pigeonhole models list
    """
    from modeling.registry.facts import summarize
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    store = ModelStore(get_settings().models)
    versions = []
    for version in store.list():
        try:
            versions.append(summarize(store, version))
        except ModelFormatError as err:
            print_message(f"cannot read {version.ref}: {err}", color="yellow")
        except FileNotFoundError:
            continue  # removed while they are listed
    if as_json:
        print_json(versions)
    elif versions:
        columns = (
            "model", "aliases", "architecture", "labels", "test accuracy", "to look at", "size", "created", "digest",
        )  # fmt: skip
        print_table(columns, [_row(facts) for facts in versions])
    else:
        print_message("no models; `pigeonhole train` publishes them")


def _row(facts: Mapping[str, Any]) -> tuple[object, ...]:
    accuracy = facts["metrics"].get("test_accuracy")
    to_look_at = None if facts["review_rate"] is None else facts["review_rate"] + facts["reject_rate"]
    return (
        facts["model"],
        " ".join(f"@{alias}" for alias in facts["aliases"]) or "-",
        facts["architecture"],
        facts["num_labels"],
        "-" if accuracy is None else f"{accuracy:.4f}",
        "-" if to_look_at is None else f"{to_look_at:.1%}",
        size_text(facts["size_bytes"]),
        facts["created"][:16].replace("T", " "),
        facts["digest"][:12],
    )


@click.command("show")
@click.argument("model")
@json_option
def show_model(model: str, as_json: bool) -> None:
    """Show what MODEL is and how it was made: name, name@2 or name@alias.

    \b
    Example:
      pigeonhole models show birds@2 --json
    """
    from modeling.registry.facts import describe
    from modeling.registry.store import ModelStore
    from orchestrator.contract.settings import get_settings

    store = ModelStore(get_settings().models)
    facts = describe(store, model)
    if as_json:
        print_json(facts)
    else:
        _print_facts(_readable(facts, store.card(facts["model"])))


def _readable(facts: Mapping[str, Any], card: "ModelCard") -> dict[str, Any]:
    """The facts for display: lists on one line, sizes and shares with units, without empty values."""
    more = ", ..." if len(card.labels) > LABELS_SHOWN else ""
    changed = {
        "aliases": ", ".join(facts["aliases"]),
        "size": size_text(facts["size_bytes"]),
        "files": ", ".join(facts["files"]),
        "labels": f"{len(card.labels)}: {', '.join(card.labels[:LABELS_SHOWN])}{more}",
        "calibration": _decisions(card.calibration) if card.calibration else UNCALIBRATED,
    }
    order = [{"size_bytes": "size"}.get(name, name) for name in facts] + ["calibration"]
    everything = {**facts, **changed}
    return {name: everything[name] for name in dict.fromkeys(order) if everything[name] not in (None, "", {})}


def _decisions(calibration: "Calibration") -> dict[str, str]:
    """A model's thresholds and their expected effect."""
    reached = sorted(threshold for threshold in calibration.accept if threshold <= 1)
    accept = f"score {reached[0]:.3f} to {reached[-1]:.3f}, by label" if reached else "never"
    if reached and len(reached) < len(calibration.accept):
        accept += f"; never for {len(calibration.accept) - len(reached)} labels"
    return {
        "temperature": f"{calibration.temperature:.3f}",
        "accept": accept,
        "reject": f"score below {calibration.reject_below:.3f}",
        "max_error": f"{calibration.max_error:.2%} of the accepted images may be wrong, {ON_AVERAGE}",
        "accepted_error": f"{calibration.accepted_error:.2%} were, of {calibration.num_images:,} validation images",
        "accept_rate": f"{max(0.0, 1 - calibration.review_rate - calibration.reject_rate):.2%}",
        "review_rate": f"{calibration.review_rate:.2%}",
        "reject_rate": f"{calibration.reject_rate:.2%}",
    }


def _print_facts(facts: Mapping[str, object], indent: int = 0) -> None:
    """Print one fact on each line; nested facts are indented below."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            print_line(f"{'':{indent}}{name}")
            _print_facts(value, indent + 2)
        else:
            print_line(f"{'':{indent}}{name:{26 - indent}} {value}")
