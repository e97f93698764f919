"""The hardware and versions that a measured choice or a compiled artifact is valid for."""

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from modeling.images.cores import num_cores

_VERSION = 5  # increased when engines are built or measured differently
_FACTS = ("model name", "cpu family", "model", "stepping", "flags")


def hardware_name(device: torch.device) -> str:
    """The device for people: a GPU's name, or the processor's with the number of cores in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu().get('model name', platform.processor())}, {num_cores()} cores"


def hardware_key(device: torch.device) -> str:
    """16 hexadecimal digits that change with the processor, its instructions, the cores in use and our libraries."""
    facts = [_VERSION, hardware_name(device), version("torch"), version("openvino")]
    facts += [_cpu() if device.type == "cpu" else torch.cuda.get_device_capability(device)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _cpu() -> dict[str, str]:
    """The facts of the first core that decide what code it runs, as far as /proc/cpuinfo has them."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {"model name": platform.processor() or platform.machine()}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if name.strip() in _FACTS}
