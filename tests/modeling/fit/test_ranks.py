import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modeling.fit.ranks import Ranks
from tests.modeling.data import make_class_folders

ROOT = Path(__file__).resolve().parents[3]


def test_the_shares_of_all_ranks_are_the_batch():
    batch = torch.arange(11)

    shares = [Ranks(rank, 3).mine(batch) for rank in range(3)]

    assert sorted(torch.cat(shares).tolist()) == list(range(11))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.integration
def test_two_processes_under_torchrun_train_the_network_that_one_trains(tmp_path):
    data = make_class_folders(tmp_path / "data", 30)
    launchers = {
        "one": [sys.executable],
        "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    }
    events, weights = {}, {}

    for name, launcher in launchers.items():
        request = {
            "data": str(data), "architecture": "perceptron", "output": str(tmp_path / name), "epochs": 3,
            "batch_size": 7, "work": str(tmp_path / f"{name}-work"),
        }  # fmt: skip
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(request))
        with subprocess.Popen(
            [*launcher, "-m", "modeling.child_process", str(path)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            events[name] = [json.loads(line)["event"] for line in process.stdout]
            assert process.wait(90) == 0, process.stderr.read()
        weights[name] = safetensors.torch.load_file(tmp_path / name / "model.safetensors")

    assert events["one"] == events["two"]  # only the first of the processes speaks
    assert events["one"].count("epoch") == 3
    for name, tensor in weights["one"].items():
        assert torch.allclose(tensor, weights["two"][name], atol=1e-5)


@pytest.mark.integration
def test_what_torchrun_started_ends_when_it_is_killed_and_the_pipe_is_closed(tmp_path):
    data = make_class_folders(tmp_path / "data", 30)
    path = tmp_path / "request.json"
    wish = {"data": str(data), "architecture": "perceptron", "output": str(tmp_path / "model"), "epochs": 10_000}
    path.write_text(json.dumps(wish))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "modeling.child_process"]

    with subprocess.Popen(
        [sys.executable, *command, str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert any('"epoch"' in line for line in process.stdout)
        process.kill()
        process.stdin.close()
        process.stdout.read()  # ends when the last that holds it has ended

    assert not (tmp_path / "model").exists()
