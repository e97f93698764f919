"""Imports pre-trained weights into the store that trainings start from; `import_weights` makes whole models."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from modeling.names import path_to_text
from modeling.networks.pretrained.at_hand import WeightsAtHand, imported_weights
from modeling.networks.pretrained.store import WeightsRecord, WeightsStore
from modeling.networks.state_dicts.plain_files import file_sha256, weights_file
from modeling.networks.state_dicts.whole import whole_state


@dataclass(frozen=True, slots=True)
class ImportedWeights:
    """Weights in the store; is_new: False where they had that name already. notes: what an operator should know."""

    name: str
    record: WeightsRecord
    path: Path
    is_new: bool
    notes: tuple[str, ...]

    @property
    def at_hand(self) -> WeightsAtHand:
        """As trainings find them."""
        return imported_weights(self.name, self.record, self.path)


def import_pretrained(
    source: Path,
    store: WeightsStore,
    name: str | None = None,
    architecture: str | None = None,
    key: str | None = None,
    *,
    check: Callable[[str], None] = lambda sha256: None,
) -> ImportedWeights:
    """Copy the weights in a file into the store, under `name` or that of their architecture.

    check: is called with the digest of the bytes to be stored; what it raises keeps them out.

    Raises:
        ArchitectureError: they load into no known architecture, or not into the wanted one.
        ModelFormatError: the file is damaged, or holds no weights.
        ModelNameError: the name is not valid.
        ModelInUseError: other weights have that name.
    """
    file = weights_file(source) if source.is_dir() else source
    whole = whole_state(file, architecture, key)
    weights = whole.to_bytes()
    record = WeightsRecord(
        architecture=whole.architecture,
        sha256=hashlib.sha256(weights).hexdigest(),
        num_classes=whole.num_classes,
        source=path_to_text(file.name),
        source_sha256=file_sha256(file),
        imported=f"{datetime.now(UTC):%Y-%m-%d}",
    )
    check(record.sha256)
    name = name or whole.architecture
    is_new = store.add(name, record, weights)
    return ImportedWeights(name, record if is_new else store.record(name), store.file(name), is_new, whole.notes)
