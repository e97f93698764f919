"""The devices of this machine that the local stack starts workers for."""

import shutil
import subprocess


def list_gpus() -> list[int]:
    """Indices of this machine's NVIDIA GPUs, by nvidia-smi; none where that is not installed or finds none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    command = [program, "--query-gpu=index", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return [int(line) for line in answer.stdout.split() if line.isdigit()] if answer.returncode == 0 else []


def list_devices() -> list[str]:
    """A name for every device a worker should hold: each GPU, or else the CPU."""
    return [f"cuda:{index}" for index in list_gpus()] or ["cpu"]
