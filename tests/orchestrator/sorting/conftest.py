from pathlib import Path

import pytest

from tests.support.sorting import ROWS, Tree, make_tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A manifest and its images, unsorted."""
    return make_tree(tmp_path, ROWS)
