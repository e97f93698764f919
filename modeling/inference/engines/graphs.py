"""The ONNX files that engines are built from, read only where their digest is known.

They lie in a store that others may write to. The network's graph is built from the model's checked weights, and its
digest is kept with the choice of the engine; another file in its place is replaced. The quantised network is checked
against the model's card.
"""

import hashlib
import logging
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.durable import temporary_beside
from modeling.errors import takes_no_writes
from modeling.registry.card import INT8_FILE, ModelCard, check_int8

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

GRAPH_FILE = "network.onnx"


class NetworkGraph:
    """The network of a model as an ONNX file in the folder of its artifacts, written when it is first read."""

    def __init__(self, network: "nn.Module", card: ModelCard, folder: Path, known: Collection[str]) -> None:
        """known: digests of the graphs that engines on any hardware were chosen with."""
        self._network = network
        self._card = card
        self._path = folder / GRAPH_FILE
        self._known = set(known)
        self.sha256: str | None = None  # of what was read; None before

    def read(self) -> bytes:
        """The bytes of the file, which have a known digest; they are written anew if they have another."""
        data = self._path.read_bytes() if self._path.is_file() else None
        digest = None if data is None else hashlib.sha256(data).hexdigest()
        if data is None or digest not in self._known:
            if data is not None:
                logger.warning("%s is not the graph that an engine was chosen with; it is built anew", self._path)
            data = self._write()
            digest = hashlib.sha256(data).hexdigest()
        self.sha256 = digest
        return data

    def forget(self) -> None:
        """Remove the file, so that the next read writes it."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> bytes:
        """Write the file; where the disk takes none, its bytes are made for this process alone."""
        try:
            with temporary_beside(self._path) as temporary:
                data = self._trace(temporary)
                temporary.replace(self._path)  # not durable: half a graph has another digest, and is built anew
        except OSError as err:
            if not takes_no_writes(err):
                raise
            logger.warning("%s cannot be kept (%s); it is built anew in every process", self._path, err.strerror)
            with tempfile.TemporaryDirectory(prefix="pigeonhole-engines-") as folder:
                data = self._trace(Path(folder, GRAPH_FILE))
        self._known.add(hashlib.sha256(data).hexdigest())
        return data

    def _trace(self, path: Path) -> bytes:
        from modeling.networks.onnx_graph import write_graph  # slow to import

        write_graph(self._network, self._card, path)
        return path.read_bytes()


def read_int8(version: Path, card: ModelCard) -> bytes:
    """The quantised network of the version in this folder, checked against its card."""
    path = version / INT8_FILE
    data = path.read_bytes()
    check_int8(data, card, path)
    return data
