"""The devices of this machine, found without torch."""

import os
import shutil
import subprocess

from orchestrator.contract.errors import UsageError

NVIDIA_SMI_TIMEOUT_S = 30


def list_gpus() -> list[int]:
    """Indices of this machine's NVIDIA GPUs as nvidia-smi counts; none where that is missing or fails.

    Where CUDA_VISIBLE_DEVICES names some, by index or by UUID, only these.

    Raises:
        UsageError: if that variable names none of this machine's GPUs.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index,uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return []
    rows = [line.partition(",") for line in answer.stdout.splitlines()] if answer.returncode == 0 else []
    found = {int(index): uuid.strip() for index, _, uuid in rows if index.isdecimal()}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not visible or not found:
        return list(found) if visible is None else []
    wanted = [name.strip() for name in visible.split(",")]
    chosen = [gpu for gpu, uuid in found.items() if any(name == str(gpu) or uuid.startswith(name) for name in wanted)]
    if not chosen:
        raise UsageError(f"CUDA_VISIBLE_DEVICES={visible!r} names none of the GPUs {', '.join(map(str, found))} here")
    return chosen


def list_devices() -> list[str]:
    """A name for every device a worker should hold: each GPU, or else the CPU."""
    return [f"cuda:{index}" for index in list_gpus()] or ["cpu"]
