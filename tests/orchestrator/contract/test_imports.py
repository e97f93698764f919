import gc

import pytest

from orchestrator.contract.imports import uncollected_imports


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_rests_in_the_block_and_is_as_before_after_it(enabled):
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with uncollected_imports():
            inside = gc.isenabled()
        after, frozen = gc.isenabled(), gc.get_freeze_count()
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()

    assert (inside, after) == (False, enabled)
    assert frozen > 0
