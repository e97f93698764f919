"""Connected components, beside a search that takes its time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modeling.data.components import Components

PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30)


def searched(pairs: list[tuple[int, int]]) -> list[int]:
    """The smallest node that can be reached from each of 20."""
    roots = list(range(20))
    for _ in range(20):
        for first, second in pairs:
            roots[first] = roots[second] = min(roots[first], roots[second])
    return roots


@given(st.lists(PAIRS, max_size=4))
def test_each_node_has_the_smallest_one_of_its_set_as_root(parts):
    components = Components(20)

    for pairs in parts:
        components.join(np.array(pairs, dtype=np.int64).reshape(-1, 2))

    assert components.roots().tolist() == searched([pair for pairs in parts for pair in pairs])


def test_nodes_are_apart_until_something_joins_them():
    components = Components(4)
    pairs = np.array([[0, 1], [1, 2], [2, 3]])

    components.join(pairs[:1])

    assert components.are_apart(pairs).tolist() == [False, True, True]
