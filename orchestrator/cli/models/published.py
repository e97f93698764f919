"""`pigeonhole models list` and `show`."""

from collections.abc import Mapping
from typing import Any

import click

from modeling.errors import ModelFormatError
from modeling.metrics.calibration import Calibration
from modeling.metrics.verdict import ON_AVERAGE
from modeling.registry.card import REPORT_FILE, ModelCard
from modeling.registry.store import ModelStore, ModelVersion
from orchestrator.cli.output import json_option, print_json, print_line, print_message, print_table, size_text
from orchestrator.contract.settings import get_settings

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
    store = ModelStore(get_settings().models)
    versions = []
    for version in store.list():
        try:
            versions.append(_summary(store, version))
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


def _summary(store: ModelStore, version: ModelVersion) -> dict[str, Any]:
    card = store.card(version.ref)
    return {
        "model": version.ref,
        "aliases": _aliases(store, version),
        "digest": version.digest,
        "architecture": card.architecture,
        "num_labels": len(card.labels),
        "metrics": card.metrics,
        "max_error": card.calibration.max_error if card.calibration else None,
        "review_rate": card.calibration.review_rate if card.calibration else None,
        "reject_rate": card.calibration.reject_rate if card.calibration else None,
        "size_bytes": version.size_bytes(),
        "created": version.created().isoformat(timespec="seconds"),
    }


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
    store = ModelStore(get_settings().models)
    version = store.resolve(model)
    card = store.card(version.ref)
    files = [str(file) for file in version.files()]
    facts = {
        "model": version.ref,
        "aliases": _aliases(store, version),
        "digest": version.digest,
        "created": version.created().isoformat(timespec="seconds"),
        "size_bytes": version.size_bytes(),
        "path": str(version.path),
        "report": str(version.path / REPORT_FILE) if REPORT_FILE in files else None,
        "files": files,
        **card.to_json(),
    }
    if as_json:
        print_json(facts)
    else:
        _print_facts(_readable(facts, card))


def _aliases(store: ModelStore, version: ModelVersion) -> list[str]:
    return [alias for alias, number in store.aliases(version.name).items() if number == version.version]


def _readable(facts: Mapping[str, Any], card: ModelCard) -> dict[str, Any]:
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


def _decisions(calibration: Calibration) -> dict[str, str]:
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
