"""Fixtures that tests of more than one package share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from orchestrator.contract.settings import Settings, get_settings

hypothesis_settings.register_profile(
    "pigeonhole", deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
hypothesis_settings.load_profile("pigeonhole")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A developer's own PIGEONHOLE_* variables change no test's outcome."""
    for name in [name for name in os.environ if name.startswith("PIGEONHOLE_")]:
        monkeypatch.delenv(name)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of the test's own; leases as short as they may be, batches of four."""
    return Settings(home=tmp_path / "home", lease_s=0.5, batch_size=4, decode_threads=2)
