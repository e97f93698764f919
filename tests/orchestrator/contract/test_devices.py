"""The devices that the local stack starts workers for: what NVML reports, and every way in which it fails."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from orchestrator.contract.devices import GpuLoad, GpuSurvey, list_devices, list_gpus, read_gpu_load, survey_gpus
from orchestrator.contract.errors import UsageError


class FakeNvml:
    """NVML with these UUIDs in the order of their index; an exception in a UUID's place is raised for that GPU."""

    class NVMLError(Exception):
        pass

    class NVMLError_LibraryNotFound(NVMLError):  # noqa: N801, N818 as pynvml names it
        pass

    def __init__(self, *uuids: str | Exception, init: Exception | None = None, count: Exception | None = None) -> None:
        self.uuids, self.init, self.count = uuids, init, count
        self.num_open = 0

    def nvmlInit(self) -> None:
        if self.init:
            raise self.init
        self.num_open += 1

    def nvmlShutdown(self) -> None:
        self.num_open -= 1

    def nvmlDeviceGetCount(self) -> int:
        if self.count:
            raise self.count
        return len(self.uuids)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        found = self.uuids[index]
        if isinstance(found, Exception):
            raise found
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return str(self.uuids[handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(used=(handle + 1) * 1_000, total=10_000)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:
        return SimpleNamespace(gpu=20 * (handle + 1))


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_a_machine_with_gpus_has_a_device_for_each():
    nvml = FakeNvml("GPU-a1", "GPU-b2", "GPU-c3")

    assert list_gpus(nvml) == [0, 1, 2]
    assert list_devices(nvml) == ["cuda:0", "cuda:1", "cuda:2"]
    assert nvml.num_open == 0


@pytest.mark.parametrize(
    ("visible", "expected"), [("1", [1]), ("2,0", [0, 2]), ("GPU-b2", [1]), ("", []), ("GPU-a, 1", [0, 1])]
)
def test_cuda_visible_devices_chooses_by_index_or_uuid(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert list_gpus(FakeNvml("GPU-a1", "GPU-b2", "GPU-c3")) == expected


def test_a_choice_that_names_no_gpu_of_this_machine_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-zz")

    with pytest.raises(UsageError, match="'GPU-zz' names none of the GPUs 0 here"):
        list_gpus(FakeNvml("GPU-a1"))


@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (FakeNvml(), "the NVIDIA driver finds no GPU"),
        (FakeNvml(init=FakeNvml.NVMLError_LibraryNotFound("gone")), "no NVIDIA driver is installed"),
        (FakeNvml(init=FakeNvml.NVMLError("Driver Not Loaded")), "the NVIDIA driver does not start: Driver Not Loaded"),
        (FakeNvml(count=FakeNvml.NVMLError("Unknown")), "the NVIDIA driver does not count its GPUs: Unknown"),
        (FakeNvml(FakeNvml.NVMLError("GPU is lost")), "GPU 0 does not answer: GPU is lost"),
    ],
    ids=["none", "no-library", "no-driver", "no-count", "lost"],
)
def test_a_machine_without_a_working_gpu_has_its_cpu_and_a_reason(nvml, reason):
    assert survey_gpus(nvml) == GpuSurvey({}, reason)
    assert list_gpus(nvml) == []
    assert list_devices(nvml) == ["cpu"]
    assert nvml.num_open == 0


def test_a_gpu_that_does_not_answer_costs_only_itself():
    nvml = FakeNvml("GPU-a1", FakeNvml.NVMLError("GPU is lost"), "GPU-c3")

    assert survey_gpus(nvml) == GpuSurvey({0: "GPU-a1", 2: "GPU-c3"})


def test_the_real_library_answers_with_or_without_a_driver():
    found = survey_gpus()

    assert bool(found.uuids) != bool(found.reason)
    assert all(uuid.startswith("GPU-") for uuid in found.uuids.values())


def test_pynvml_is_loaded_only_by_those_who_ask():
    code = "import sys, orchestrator.contract.devices; print('pynvml' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_the_load_of_several_gpus_is_their_memory_together_and_their_mean_use():
    nvml = FakeNvml("GPU-a1", "GPU-b2", "GPU-c3")

    assert read_gpu_load([0, 2], nvml) == GpuLoad(0.4, 4_000, 20_000)
    assert nvml.num_open == 0


@pytest.mark.parametrize(
    "nvml", [FakeNvml("GPU-a1", FakeNvml.NVMLError("lost")), FakeNvml(init=FakeNvml.NVMLError_LibraryNotFound())]
)
def test_a_gpu_that_does_not_answer_has_no_load(nvml):
    assert read_gpu_load([0, 1], nvml) is None
    assert nvml.num_open == 0
