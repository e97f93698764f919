"""What lists and pages say of published models: one form for the command line and for programs."""

from typing import Any

from modeling.registry.card import REPORT_FILE
from modeling.registry.store import ModelStore, ModelVersion


def summarize(store: ModelStore, version: ModelVersion) -> dict[str, Any]:
    """A version in a list.

    Raises:
        ModelFormatError: its card or the aliases cannot be read.
        FileNotFoundError: it was removed meanwhile.
    """
    card = store.card(version.ref)
    return {
        "model": version.ref,
        "aliases": aliases_of(store, version),
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


def describe(store: ModelStore, ref: str) -> dict[str, Any]:
    """Everything about one version: its files and its card. Raises as `ModelStore.resolve` does."""
    version = store.resolve(ref)
    files = [str(file) for file in version.files()]
    return {
        "model": version.ref,
        "aliases": aliases_of(store, version),
        "digest": version.digest,
        "created": version.created().isoformat(timespec="seconds"),
        "size_bytes": version.size_bytes(),
        "path": str(version.path),
        "report": str(version.path / REPORT_FILE) if REPORT_FILE in files else None,
        "files": files,
        **store.card(version.ref).to_json(),
    }


def aliases_of(store: ModelStore, version: ModelVersion) -> list[str]:
    """The aliases that stand for a version."""
    return [alias for alias, number in store.aliases(version.name).items() if number == version.version]
