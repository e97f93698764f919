"""Connected components of a graph whose edges come in arrays."""

# Shapes: N nodes, P pairs of nodes.
import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Components:
    """Sets of nodes that pairs join; each set's root is its smallest node."""

    def __init__(self, num_nodes: int) -> None:
        self._parents_N = np.arange(num_nodes)

    def are_apart(self, pairs_P2: Indices) -> NDArray[np.bool_]:
        """Whether the two nodes of each pair are in different sets."""
        roots_P2 = self._roots_of(pairs_P2)
        apart_P: NDArray[np.bool_] = roots_P2[:, 0] != roots_P2[:, 1]
        return apart_P

    def join(self, pairs_P2: Indices) -> None:
        """Join the sets of the two nodes of each pair."""
        roots_P2 = self._roots_of(pairs_P2)
        for first, second in roots_P2[roots_P2[:, 0] != roots_P2[:, 1]].tolist():
            low, high = sorted((self._root(first), self._root(second)))
            self._parents_N[high] = low

    def roots(self) -> Indices:
        """The root of each node."""
        return self._roots_of(np.arange(len(self._parents_N)))

    def _roots_of(self, nodes: Indices) -> Indices:
        """The root of each node; the way to it is short from now on."""
        found = self._parents_N[nodes]
        while not np.array_equal(higher := self._parents_N[found], found):
            found = higher
        self._parents_N[nodes] = found
        return found

    def _root(self, node: int) -> int:
        while (parent := int(self._parents_N[node])) != node:
            self._parents_N[node] = self._parents_N[parent]  # halves the way for the next search
            node = parent
        return node
