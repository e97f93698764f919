import json
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import safetensors.torch
import torch

from modeling.training.fit.ranks import Ranks
from modeling.training.request import TrainRequest
from modeling.training.train import train
from tests.support.images import make_class_folders

ROOT = Path(__file__).resolve().parents[4]


def test_the_shares_of_all_ranks_are_the_batch():
    batch = torch.arange(11)

    shares = [Ranks(rank, 3).share_of(batch) for rank in range(3)]

    assert sorted(torch.cat(shares).tolist()) == list(range(11))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def request_of(output, chosen):
    return {"output": str(output), "epochs": 3, "batch_size": 7, "work": f"{output}-work"} | chosen


def trained_by_one(output, **chosen):
    """The events and the weights of a training in this process."""
    events = []
    train(TrainRequest.from_json(request_of(output, chosen)), events.append)
    return events, safetensors.torch.load_file(output / "model.safetensors")


def trained_by_two(output, **chosen):
    """The same of one in two processes."""
    path = output.with_suffix(".json")
    path.write_text(json.dumps(request_of(output, chosen)))
    with subprocess.Popen(
        [*TORCHRUN, "-m", "modeling.training.process", str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        events = [json.loads(line) for line in process.stdout]
        assert process.wait(90) == 0, process.stderr.read()
    return events, safetensors.torch.load_file(output / "model.safetensors")


def check_alike(one, two):
    """Two trainings told the same, and left the same weights; only the first of several processes speaks."""
    kinds = [[kind for kind, _ in groupby(event["event"] for event in events)] for events in (one[0], two[0])]
    assert kinds[0] == kinds[1]  # how often progress is reported depends on the clock
    losses = [[event["loss"] for event in events if event["event"] == "epoch"] for events in (one[0], two[0])]
    assert len(losses[0]) == 3
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, tensor in one[1].items():
        assert torch.allclose(tensor, two[1][name], atol=1e-5)


@pytest.mark.integration
def test_two_processes_under_torchrun_train_the_network_that_one_trains(tmp_path):
    chosen = {"data": str(make_class_folders(tmp_path / "data", 30)), "architecture": "perceptron"}

    one = trained_by_one(tmp_path / "one", **chosen)
    two = trained_by_two(tmp_path / "two", **chosen)

    check_alike(one, two)


@pytest.mark.integration
def test_two_processes_under_torchrun_probe_and_tune_as_one_does(tmp_path):
    data = make_class_folders(tmp_path / "data", 30)
    chosen = {"data": str(data), "architecture": "perceptron"}  # no dropout, nothing augmented: ranks draw their own
    base = {"output": str(tmp_path / "base"), "epochs": 1, "seed": 5}
    train(TrainRequest.from_json(chosen | base), lambda event: None)
    chosen |= {"weights": str(tmp_path / "base"), "learning_rate": 1e-3}

    one = trained_by_one(tmp_path / "one", **chosen)
    two = trained_by_two(tmp_path / "two", **chosen)

    check_alike(one, two)
    probes = [[event for event in events if event["event"] == "probe"] for events, _ in (one, two)]
    assert len(probes[0]) == 1
    assert probes[0] == probes[1]


@pytest.mark.integration
def test_what_torchrun_started_ends_when_it_is_killed_and_the_pipe_is_closed(tmp_path):
    data = make_class_folders(tmp_path / "data", 30)
    path = tmp_path / "request.json"
    chosen = {"data": str(data), "architecture": "perceptron", "output": str(tmp_path / "model"), "epochs": 10_000}
    path.write_text(json.dumps(chosen))

    with subprocess.Popen(
        [*TORCHRUN, "-m", "modeling.training.process", str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert any('"epoch"' in line for line in process.stdout)
        process.kill()
        process.stdin.close()
        process.stdout.read()  # ends when the last that holds it has ended

    assert not (tmp_path / "model").exists()
