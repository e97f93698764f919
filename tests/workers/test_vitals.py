import pytest

from orchestrator.contract.devices import GpuLoad
from workers import vitals as module
from workers.vitals import Vitals


def test_a_worker_tells_memory_and_cores_of_its_processes(monkeypatch):
    vitals = Vitals("cpu")
    first = vitals.read()
    assert vitals.read() is first  # not measured at each heartbeat
    monkeypatch.setattr(module, "EVERY_S", 0.0)

    second = vitals.read()

    assert set(first) == {"rss_bytes", "cpu_milli"}
    assert int(first["rss_bytes"]) > 1_000_000
    assert first["cpu_milli"] == 0  # nothing to compare with yet
    assert int(second["cpu_milli"]) >= 0


@pytest.mark.parametrize(("device", "gpus"), [("cuda:0", [0]), ("cuda:0,3", [0, 3])])
def test_a_worker_of_gpus_tells_their_load(monkeypatch, device, gpus):
    asked = []

    def read(indices):
        asked.append(indices)
        return GpuLoad(0.5, 7, 9)

    monkeypatch.setattr(module, "read_gpu_load", read)

    found = Vitals(device).read()

    assert asked == [gpus]
    assert (found["gpu_milli"], found["gpu_used_bytes"], found["gpu_total_bytes"]) == (500, 7, 9)
