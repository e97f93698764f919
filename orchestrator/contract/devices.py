"""The devices of this machine, found without torch: NVIDIA's management library (NVML) counts the GPUs."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.contract.errors import UsageError


@dataclass(frozen=True)
class GpuSurvey:
    """The GPUs that the driver reports: UUIDs by index, in PCI bus order; `reason` says why there are none."""

    uuids: dict[int, str] = field(default_factory=dict)
    reason: str = ""


def survey_gpus(nvml: Any = None) -> GpuSurvey:
    """Every NVIDIA GPU of this machine. `nvml` is the module to ask; None is pynvml.

    Empty for a machine without a working driver. A GPU that the driver cannot open is left out.
    """
    if nvml is None:
        import pynvml  # only here: most commands need no device

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError_LibraryNotFound:
        return GpuSurvey(reason="no NVIDIA driver is installed")
    except nvml.NVMLError as err:
        return GpuSurvey(reason=f"the NVIDIA driver does not start: {err}")
    try:
        uuids, failures = _ask_each(nvml)
    except nvml.NVMLError as err:
        return GpuSurvey(reason=f"the NVIDIA driver does not count its GPUs: {err}")
    finally:
        nvml.nvmlShutdown()
    return GpuSurvey(uuids, "" if uuids else "; ".join(failures) or "the NVIDIA driver finds no GPU")


def list_gpus(nvml: Any = None) -> list[int]:
    """Indices of this machine's NVIDIA GPUs, as nvidia-smi numbers them; empty without a working driver.

    If CUDA_VISIBLE_DEVICES names some, by index or by UUID, only those. Raises UsageError if that variable names none
    of this machine's GPUs.
    """
    found = survey_gpus(nvml).uuids
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible or not found:
        return list(found) if visible is None else []
    wanted = [name.strip() for name in visible.split(",")]
    chosen = [gpu for gpu, uuid in found.items() if any(name == str(gpu) or uuid.startswith(name) for name in wanted)]
    if not chosen:
        raise UsageError(f"CUDA_VISIBLE_DEVICES={visible!r} names none of the GPUs {', '.join(map(str, found))} here")
    return chosen


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """How busy GPUs are: the mean share of time with a kernel running, and bytes of memory, by all processes."""

    use: float
    used_bytes: int
    total_bytes: int


def read_gpu_load(indices: Sequence[int], nvml: Any = None) -> GpuLoad | None:
    """The load of some GPUs together; None where the driver does not tell. `nvml` as in `survey_gpus`."""
    if nvml is None:
        import pynvml

        nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in indices]
        memory = [nvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
        use = [nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in handles]
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()
    return GpuLoad(sum(use) / len(use), sum(int(each.used) for each in memory), sum(int(each.total) for each in memory))


def list_devices(nvml: Any = None) -> list[str]:
    """A name for every device a worker should hold: each GPU, or else the CPU."""
    return [f"cuda:{index}" for index in list_gpus(nvml)] or ["cpu"]


def _ask_each(nvml: Any) -> tuple[dict[int, str], list[str]]:
    """The UUIDs of the GPUs that answer, by index, and the errors of the others."""
    uuids, failures = {}, []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            uuids[index] = str(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)))
        except nvml.NVMLError as err:
            failures.append(f"GPU {index} does not answer: {err}")
    return uuids, failures
