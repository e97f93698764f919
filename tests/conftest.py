"""Fixtures that tests of more than one package share."""

import functools
import gc
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from orchestrator.contract.settings import Settings, get_settings

if TYPE_CHECKING:
    from torch import nn

    from modeling.registry.card import ModelCard

# Before torch is imported, and for workers and trainings, too: networks in tests are tiny, and threads that wait for
# each other cost most on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is imported and collected stays to the end: the garbage collector would visit it again and again.
gc.disable()


def pytest_collection_finish() -> None:
    """From here on the collector looks at what tests make; torch's loggers pass on their records.

    pytest adds its handlers to each logger that does not, three times for every test, and torch has forty.
    """
    gc.freeze()
    gc.enable()
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.propagate = True


def pytest_sessionfinish() -> None:
    """At exit the collector sees all again: triton reports what it skips as leaks, hundreds of lines."""
    gc.unfreeze()


_FIXTURES = (HealthCheck.function_scoped_fixture,)
# The same examples in every run: a change that breaks nothing never fails by chance. `make fuzz` looks for new ones.
hypothesis_settings.register_profile(
    "repeatable", derandomize=True, deadline=None, max_examples=50, suppress_health_check=_FIXTURES
)
hypothesis_settings.register_profile(
    "fuzz", deadline=None, max_examples=5_000, print_blob=True, suppress_health_check=_FIXTURES
)
hypothesis_settings.load_profile("repeatable")


# Of the files whose tests start processes, those that take longest, a minute and more each: at the end of a run one of
# them would run alone.
_LONGEST = (
    "test_training_jobs", "test_worker_faults", "test_demo", "test_stack", "test_evaluate_jobs", "test_server_faults",
    "test_classify_jobs", "test_machines", "test_scale", "test_cli_jobs", "test_classify_slice", "test_line_model",
    "test_gateway_kills", "test_fleet", "test_schedules", "test_steps",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests wait for processes come evenly among those whose tests compute, those that take longest first.

    So neither the cores nor the processes of `make test` are idle.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = [path for path, own in files.items() if any(item.get_closest_marker("integration") for item in own)]
    computing = [path for path in files if path not in set(waiting)]
    waiting.sort(key=lambda path: _LONGEST.index(path.stem) if path.stem in _LONGEST else len(_LONGEST))
    places = {path: place / len(group) for group in (waiting, computing) for place, path in enumerate(group)}
    items[:] = [item for path in sorted(places, key=places.__getitem__) for item in files[path]]


@pytest.fixture(autouse=True)
def _every_level_is_logged_again() -> Iterator[None]:
    """A command that ran in this process and logs errors alone must not hide the warnings a later test looks for."""
    yield
    for name, logger in logging.root.manager.loggerDict.items():
        if (
            isinstance(logger, logging.Logger)
            and logger.level
            and name.startswith(("orchestrator", "workers", "modeling"))
        ):
            logger.setLevel(logging.NOTSET)


@pytest.fixture(autouse=True, scope="session")
def _engines_are_measured_for_a_moment() -> Iterator[None]:
    """In this process the choice of an engine takes a tenth of its time: no test needs the truly fastest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modeling.inference.timing._MEASURE_S", 0.01)
        patch.setattr("modeling.inference.bench._LATENCY_S", 0.02)
        yield


@pytest.fixture(autouse=True, scope="session")
def _graphs_are_traced_once() -> Iterator[None]:
    """A second for each graph that an engine is built from: the same network is traced once in this process.

    And torch describes its two thousand operators once, not for every graph.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from modeling.networks import onnx_graph

    traced: dict[str, tuple[bytes, int]] = {}
    trace = onnx_graph.write_graph

    def write(network: "nn.Module", card: "ModelCard", path: Path) -> int:
        weights = sorted(network.state_dict().items())
        facts = [card.to_bytes(), *(name.encode() + bytes(value.numpy()) for name, value in weights)]
        key = hashlib.sha256(b"".join(facts)).hexdigest()
        if key not in traced:
            opset = trace(network, card, path)
            traced[key] = (path.read_bytes(), opset)
        path.write_bytes(traced[key][0])
        return traced[key][1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        patch.setattr(onnx_graph, "write_graph", write)
        yield


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A developer's own PIGEONHOLE_* variables and settings file change no test's outcome."""
    for name in [name for name in os.environ if name.startswith("PIGEONHOLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIGEONHOLE_CONFIG", os.devnull)
    monkeypatch.setenv("TORCH_HOME", os.devnull)  # nor do weights that torchvision has downloaded for them
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of the test's own; leases as short as they may be, batches of four."""
    return Settings(home=tmp_path / "home", lease_s=0.5, batch_size=4, decode_threads=2)
