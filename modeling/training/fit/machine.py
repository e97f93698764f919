"""The machine that a training runs on, as far as its weights depend on it to the last bit."""

import json
import logging
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import torch

from modeling.durable import STRICT, decode_json, link_once, temporary_beside, validated, write_durable
from modeling.errors import ModelFormatError
from modeling.inference.engines.hardware import processor_kind

_FILE = "machine.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Machine:
    """processor: of the device. num_threads: that torch computes with. num_processes: that train together."""

    processor: str
    torch: str
    num_threads: int
    num_processes: int = 1

    __pydantic_config__ = STRICT


def this_machine(device: torch.device, num_processes: int) -> Machine:
    """The machine of this process, with the number of threads that is set now."""
    return Machine(processor_kind(device), version("torch"), torch.get_num_threads(), num_processes)


def use_first_threads(work: Path | None, machine: Machine) -> Machine:
    """Compute with as many threads as the first attempt of this training did; returns the machine with them.

    How sums are split over threads decides their last bits. The first attempt links its number into the work folder,
    where it stays; if it cannot be written, or is damaged, later attempts use their own.

    Raises:
        OSError: the storage is away.
    """
    if work is None or machine.num_processes > 1:
        return machine
    first = _read(work / _FILE)
    if first is None and not _put(work / _FILE, machine):
        first = _read(work / _FILE)  # of another attempt, which was faster
    if first is None:
        return machine
    torch.set_num_threads(first.num_threads)
    return replace(machine, num_threads=first.num_threads)


def differences(before: Machine, now: Machine) -> str:
    """What differs between two machines, in words; empty where the same weights can be expected, bit for bit."""
    pairs = [(name.replace("_", " "), getattr(before, name), getattr(now, name)) for name in asdict(now)]
    return ", ".join(f"{name} {old} before, {new} now" for name, old, new in pairs if old != new)


def _read(path: Path) -> Machine | None:
    try:
        return validated(Machine, decode_json(path.read_bytes(), str(path)), str(path))
    except FileNotFoundError:
        return None
    except ModelFormatError as err:
        logger.warning("the number of threads of this training is lost: %s", err)
        return None


def _put(path: Path, machine: Machine) -> bool:
    """Write the file, unless it is there; returns whether it is this one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary_beside(path) as temporary:
            write_durable(temporary, json.dumps(asdict(machine)).encode())
            return link_once(temporary, path)
    except OSError as err:
        logger.warning("the number of threads of this training is not kept: %s", err)
        return True
