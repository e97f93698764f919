"""The hardware and versions that a measured choice or a compiled artifact is valid for."""

import hashlib
import json
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from modeling.images.quotas import num_cores

if TYPE_CHECKING:
    import torch

_VERSION = 5  # increased when engines are built or measured differently
_PACKAGES = ("pigeonhole", "torch", "openvino", "pillow", "simplejpeg")
_FACTS = ("model name", "cpu family", "model", "stepping", "flags")


def hardware_name(device: "torch.device | None" = None) -> str:
    """The device for people: a GPU's name, or the processor's with the number of cores in use.

    device: None is the processor, for callers that have not imported torch.
    """
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    return f"{_cpu().get('model name', platform.processor())}, {num_cores()} cores"


@cache
def made_with(device: str) -> str:
    """What the last digits of scores may depend on, for people: the device, as torch names it, and versions."""
    if device.startswith("cuda"):
        import torch

        name = hardware_name(torch.device(device))
    else:
        name = hardware_name()
    return f"{name}; {', '.join(f'{package} {version(package)}' for package in _PACKAGES)}"


def hardware_key(device: "torch.device | None" = None) -> str:
    """16 hexadecimal digits that change with the processor, its instructions, the cores in use and our libraries."""
    facts = [_VERSION, hardware_name(device), version("torch"), version("openvino"), _facts_of(device)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def processor_kind(device: "torch.device") -> str:
    """The processor for people, and digits that change with what decides the last bits of what it computes."""
    name = hardware_name(device) if device.type == "cuda" else _cpu().get("model name", platform.processor())
    return f"{name} ({hashlib.sha256(json.dumps(_facts_of(device), sort_keys=True).encode()).hexdigest()[:8]})"


def _facts_of(device: "torch.device | None") -> dict[str, str] | tuple[int, int]:
    if device is None or device.type == "cpu":
        return _cpu()
    import torch

    return torch.cuda.get_device_capability(device)


def _cpu() -> dict[str, str]:
    """The facts of the first core that decide what code it runs, as far as /proc/cpuinfo has them."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {"model name": platform.processor() or platform.machine()}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in _FACTS}
