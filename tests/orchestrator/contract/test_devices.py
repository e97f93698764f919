"""The devices that the local stack starts workers for: what nvidia-smi says, told from every way of not saying it."""

import os
from pathlib import Path

import pytest

from orchestrator.contract.devices import list_devices, list_gpus
from orchestrator.contract.errors import UsageError


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program of that name, with this text, alone on PATH."""

    def install(script: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return install


def test_a_machine_with_gpus_has_a_device_for_each(nvidia_smi):
    nvidia_smi(
        'test "$*" = "--query-gpu=index,uuid --format=csv,noheader" && printf "0, GPU-a1\\n1, GPU-b2\\n7, GPU-c3\\n"'
    )

    assert list_gpus() == [0, 1, 7]
    assert list_devices() == ["cuda:0", "cuda:1", "cuda:7"]


@pytest.mark.parametrize(
    ("visible", "expected"), [("1", [1]), ("7,0", [0, 7]), ("GPU-b2", [1]), ("", []), ("GPU-a, 1", [0, 1])]
)
def test_cuda_visible_devices_chooses_by_index_or_uuid(nvidia_smi, monkeypatch, visible, expected):
    nvidia_smi('printf "0, GPU-a1\\n1, GPU-b2\\n7, GPU-c3\\n"')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    assert list_gpus() == expected


def test_a_choice_that_names_no_gpu_of_this_machine_is_refused(nvidia_smi, monkeypatch):
    nvidia_smi('printf "0, GPU-a1\\n"')
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-zz")

    with pytest.raises(UsageError, match="'GPU-zz' names none of the GPUs 0 here"):
        list_gpus()


@pytest.mark.parametrize(
    "script",
    [
        "exit 0",
        'echo "No devices were found"',
        'echo 0; echo "NVIDIA-SMI has failed because it could not communicate with the driver" >&2; exit 9',
    ],
)
def test_a_machine_whose_driver_finds_none_has_its_cpu(nvidia_smi, script):
    nvidia_smi(script)

    assert list_gpus() == []
    assert list_devices() == ["cpu"]


def test_a_machine_without_a_driver_has_its_cpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", os.fspath(tmp_path))

    assert list_devices() == ["cpu"]
