"""The GPU benchmark, run on the CPU."""

import pytest
import torch

from benchmarks import gpu
from benchmarks.throughput_folders import make_photographs
from benchmarks.throughput_networks import publish_network
from benchmarks.throughput_ours import Subject
from modeling.inference.classifier import Classifier
from modeling.inference.engines.torch_engine import TorchEngine
from orchestrator.contract.settings import Settings

CPU = torch.device("cpu")


def test_a_network_has_the_shares_of_what_it_does_alone(tmp_path, monkeypatch):
    make_photographs(tmp_path / "images", 12)
    settings = Settings(home=tmp_path / "home", server_url=None)
    monkeypatch.setattr(gpu, "BATCHES", (2, 4))
    monkeypatch.setattr(gpu, "MODEL_ALONE_S", 0.01)
    monkeypatch.setattr(gpu, "TorchEngine", lambda *facts: TorchEngine(*facts[:3]))  # bf16 takes a processor long
    monkeypatch.setattr(gpu, "measure_jobs", lambda subject, outputs: (2.0, 8.0))
    monkeypatch.setattr(
        "benchmarks.throughput_ours.load_classifier", lambda version, _: Classifier.load(version.path).for_batch_size(4)
    )
    subject = Subject(tmp_path / "images", publish_network(settings.models, "squeezenet1_1"), settings)

    found = gpu.measure_network(subject, tmp_path, repeats=2)

    assert (found["decoder"], found["job_cold"], found["job_warm"]) == ("cores", 2.0, 8.0)
    best = found["model"][found["best_batch"]]
    assert best == max(found["model"].values()) > 0
    assert found["library_to_model"] == pytest.approx(found["library"] / best, abs=1e-3)
    assert found["job_to_model"] == pytest.approx(8 / best, abs=1e-3)


def test_both_decoders_have_a_rate_and_one_that_fails_costs_its_figure_only(tmp_path, monkeypatch, capsys):
    make_photographs(tmp_path / "images", 8)
    files = sorted((tmp_path / "images").rglob("*.jpg"))
    monkeypatch.setattr(gpu, "DAMAGE_TRIALS", 3)
    monkeypatch.setattr(gpu, "num_cores", lambda: 1)

    found = gpu.measure_decoding(files, CPU, repeats=1)
    monkeypatch.setattr("modeling.inference.nvjpeg.decode_jpeg", raising)
    without = gpu.measure_decoding(files, CPU, repeats=1)

    cores = {"1 threads", "1 processes"}
    assert cores <= set(without)
    assert all(found[name] > 0 for name in {*cores, "nvjpeg"})
    assert found["damaged"] == {
        "num_files": 8,
        "bare_shown": 8,  # libjpeg-turbo, which stands in for nvJPEG, makes the rest grey
        "bare_unsteady": 0,
        "guarded_shown": 0,
        "guarded_unsteady": 0,
    }
    assert set(without) == set(found) - {"nvjpeg", "damaged"}
    assert "nvJPEG is not measured: no driver" in capsys.readouterr().out


def raising(*_, **__):
    raise RuntimeError("no driver")
