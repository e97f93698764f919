"""The graphs of a GPU, with stand-ins for what torch offers there: what is replayed, padded and handed out."""

import contextlib
import threading

import numpy as np
import pytest
import torch

from modeling.images.preprocessing import Preprocessing
from modeling.inference.engines.torch_engine import CudaGraphEngine, TorchEngine
from modeling.inference.timing import random_images
from modeling.networks.build import build_network

GREY = Preprocessing("L", 12, 12)


class Gpu:
    """What is recorded and replayed, as a GPU would: a replay computes anew from the tensors of the recording."""

    def __init__(self, monkeypatch) -> None:
        self.recorded, self.num_replays, self.recording = [], 0, None
        gpu = self

        class Stream:
            def __init__(self, device) -> None: ...

            def wait_stream(self, other) -> None: ...

            def synchronize(self) -> None: ...

        class Graph:
            def replay(self) -> None:
                gpu.num_replays += 1
                self.logits.copy_(self.forward(self.images))

        @contextlib.contextmanager
        def record(graph, **_):
            gpu.recording = graph
            yield
            gpu.recording = None

        forward = TorchEngine.forward

        def watched(engine, images):
            logits = forward(engine, images)
            if gpu.recording is not None:
                gpu.recorded.append(len(images))
                gpu.recording.images, gpu.recording.logits = images, logits
                gpu.recording.forward = lambda images: forward(engine, images)
            return logits

        zeros = torch.zeros

        def unpinned(*args, pin_memory=False, **more):
            return zeros(*args, **more)

        monkeypatch.setattr(torch, "zeros", unpinned)
        monkeypatch.setattr(TorchEngine, "forward", watched)
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", record)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", tuple)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)


@pytest.fixture
def engine():
    torch.manual_seed(0)
    return TorchEngine(build_network("cnn", GREY, 3), GREY, torch.device("cpu"))


def test_answers_are_those_of_the_network_whatever_was_computed_before(engine, monkeypatch):
    gpu, sizes = Gpu(monkeypatch), (5, 8, 3, 1, 8)
    batches = [random_images(GREY, 8)[-size:] for size in sizes]
    graphs = CudaGraphEngine(engine)

    found = [graphs.logits(images) for images in batches]

    for images, logits in zip(batches, found, strict=True):
        torch.testing.assert_close(logits, engine.logits(images))
    assert gpu.num_replays == len(batches)
    assert graphs.name == "torch fp32 graphs"


def test_a_graph_is_recorded_once_a_stream_for_each_padded_size(engine, monkeypatch):
    gpu = Gpu(monkeypatch)
    graphs = CudaGraphEngine(engine)

    for size in (3, 4, 4, 3, 1, 1):  # the two streams take turns
        graphs.logits(np.zeros((size, *GREY.shape), np.uint8))

    assert gpu.recorded == [4, 4, 1, 1]


def test_two_batches_may_be_under_way_at_once_and_no_more(engine, monkeypatch):
    Gpu(monkeypatch)
    graphs = CudaGraphEngine(engine)
    inside, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=10)  # breaks, and so fails the test, unless two are inside at once

    class Busy:
        def logits(self, images):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            both.wait()
            with lock:
                inside -= 1

    for _ in range(2):
        graphs._idle.get()
        graphs._idle.put(Busy())
    threads = [threading.Thread(target=graphs.logits, args=(None,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 2
