"""The devices of this machine, found without torch."""

import os
import shutil
import subprocess

NVIDIA_SMI_TIMEOUT_S = 30


def list_gpus() -> list[int]:
    """Indices of this machine's NVIDIA GPUs as nvidia-smi counts; none where that is missing or fails.

    Where CUDA_VISIBLE_DEVICES names some, only these.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return []
    found = [int(line) for line in answer.stdout.split() if line.isdecimal()] if answer.returncode == 0 else []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    wanted = [int(name) for name in visible.split(",") if name.strip().isdecimal()]
    return [gpu for gpu in found if gpu in wanted]


def list_devices() -> list[str]:
    """A name for every device a worker should hold: each GPU, or else the CPU."""
    return [f"cuda:{index}" for index in list_gpus()] or ["cpu"]
