import os
import subprocess
import sys
import tempfile

import pytest

from orchestrator.contract.errors import UnavailableError, UsageError
from workers.devices import Device, take_device


def test_two_workers_take_two_gpus_and_a_third_is_refused(tmp_path):
    first = take_device("auto", gpus=[0, 1], locks=tmp_path)
    second = take_device("auto", gpus=[0, 1], locks=tmp_path)

    assert [(device.name, device.torch_name, device.visible) for device in (first, second)] == [
        ("cuda:0", "cuda:0", "0"),
        ("cuda:1", "cuda:0", "1"),
    ]
    with pytest.raises(UnavailableError) as refused:
        take_device("auto", gpus=[0, 1], locks=tmp_path)
    assert str(refused.value) == ("other workers hold GPU 0, 1; stop one, or start this one with --device cpu")
    release(first, second)


_TAKE = """
import sys
from orchestrator.contract.run_folder import own_run_folder
own_run_folder()
from workers.devices import take_device
device = take_device("auto", gpus=[0, 1])
print(device.name, flush=True)
sys.stdin.read()
"""


def test_workers_of_one_machine_see_the_gpus_that_each_other_took():
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ph-") as temporary:  # short enough for run folders
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", _TAKE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env=os.environ | {"TMPDIR": temporary},
            )
            for _ in range(2)
        ]  # fmt: skip
        try:
            assert sorted(worker.stdout.readline() for worker in workers) == ["cuda:0\n", "cuda:1\n"]
        finally:
            for worker in workers:
                worker.communicate()


def test_a_gpu_is_free_again_when_its_worker_has_ended(tmp_path):
    release(take_device("cuda:1", gpus=[0, 1], locks=tmp_path))

    device = take_device("cuda:1", gpus=[0, 1], locks=tmp_path)

    assert device.name == "cuda:1"
    release(device)


def test_several_gpus_are_taken_together_or_not_at_all(tmp_path):
    alone = take_device("cuda:2", gpus=[0, 1, 2], locks=tmp_path)

    with pytest.raises(UnavailableError, match="other workers hold GPU 1, 2"):
        take_device("cuda:2,1", gpus=[0, 1, 2], locks=tmp_path)
    together = take_device("cuda:1,0", gpus=[0, 1, 2], locks=tmp_path)

    assert (together.name, together.torch_name, together.visible) == ("cuda:0,1", "cuda:0", "0,1")
    with pytest.raises(UnavailableError):
        take_device("cuda:1", gpus=[0, 1, 2], locks=tmp_path)
    release(alone, together)


def release(*devices: Device) -> None:
    for device in devices:
        for lock in device.locks:
            lock.close()


@pytest.mark.parametrize(("wanted", "gpus"), [("cpu", [0]), ("cpu", []), ("auto", [])])
def test_the_cpu_is_taken_by_any_number_of_workers_and_sees_no_gpu(wanted, gpus, tmp_path):
    devices = [take_device(wanted, gpus=gpus, locks=tmp_path) for _ in range(3)]

    assert [(device.name, device.torch_name, device.visible, device.locks) for device in devices] == [
        ("cpu", "cpu", "", ())
    ] * 3


@pytest.mark.parametrize("wanted", ["gpu", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:²", "cuda:0,", "0,1", ""])
def test_an_invalid_device_name_is_refused(wanted, tmp_path):
    with pytest.raises(UsageError, match=r"is not one of auto, cpu, cuda:N"):
        take_device(wanted, gpus=[0], locks=tmp_path)


@pytest.mark.parametrize(("gpus", "has"), [([0, 1], r"\[0, 1\]"), ([], "none")])
def test_a_missing_gpu_is_refused_with_the_list_of_gpus(gpus, has, tmp_path):
    with pytest.raises(UsageError, match=rf"there is no GPU 7 here; this machine has {has}"):
        take_device("cuda:7", gpus=gpus, locks=tmp_path)
