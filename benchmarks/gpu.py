"""How much of a GPU we use: resnet50 and convnext_tiny in bfloat16, from JPEGs to predictions and to a manifest.

    python -m benchmarks.gpu --num-images 12288 --repeats 3

Ends with 69 where torch finds no CUDA; needs nothing from the network. For each network: the model alone at several
sizes of batch; the library in this process and whole jobs through server, worker and manifest, both on the engine, in
the batches and with the decoder that are chosen by themselves, as shares of what the model alone does at its best.
Beside them, decoding to the network's size: by threads, by as many processes as there are cores (which wait for no
lock of Python's), and by nvJPEG. `--device cpu` rehearses all of it, for figures that mean nothing. The last line is
JSON; it goes to `benchmarks/results/`, too.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import describe_run, keep
from benchmarks.throughput_folders import make_photographs
from benchmarks.throughput_networks import PHOTOGRAPHIC, publish_network
from benchmarks.throughput_ours import Subject, measure_jobs
from modeling.images.decode import decode_image
from modeling.images.formats import MAX_PIXELS
from modeling.images.quotas import num_cores
from modeling.inference.decoders import DEVICE_CHUNK, DEVICE_THREADS
from modeling.inference.engines.torch_engine import TorchEngine
from modeling.inference.nvjpeg import NvJpeg
from orchestrator.contract.settings import Settings

UNAVAILABLE = 69  # EX_UNAVAILABLE of sysexits.h
NETWORKS = ("resnet50", "convnext_tiny")
BATCHES = (32, 64, 128, 256, 512)
MODEL_ALONE_S = 1.0
NUM_DECODED = 4096  # of the images are enough to time decoding alone
SHARE = 16  # images that a thread or a process is handed at a time
DAMAGE_TRIALS = 10


def measure_model(engine: TorchEngine, batch_size: int) -> float:
    """Images per second through the network, from pixels on the device to logits on the device."""
    images = torch.randint(0, 256, (batch_size, *PHOTOGRAPHIC.shape), dtype=torch.uint8, device=engine.device)
    for _ in range(3):
        engine.forward(images)
    _wait(engine.device)
    started, num_images = time.perf_counter(), 0
    while time.perf_counter() - started < MODEL_ALONE_S:
        for _ in range(5):
            engine.forward(images)
        _wait(engine.device)
        num_images += 5 * batch_size
    return num_images / (time.perf_counter() - started)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def decode_all(files: list[Path]) -> int:
    """Read and decode files to the network's size; returns their number."""
    return len([decode_image(path.read_bytes(), PHOTOGRAPHIC) for path in files])


def measure_cores(files: list[Path], pool: ThreadPoolExecutor | Pool) -> float:
    """Images per second, read and decoded to the network's size by threads or processes."""
    shares = [files[at : at + SHARE] for at in range(0, len(files), SHARE)]
    sum(pool.map(decode_all, shares[: 4 * num_cores()]))  # they start when they are wanted
    started = time.perf_counter()
    num_decoded = sum(pool.map(decode_all, shares))
    return num_decoded / (time.perf_counter() - started)


def measure_nvjpeg(files: list[Path], device: torch.device) -> float:
    """Images per second, read by threads, decoded to the network's size on the GPU, and copied to the host."""
    together = NvJpeg(PHOTOGRAPHIC, device)

    def decode(at: int) -> int:
        images = together([path.read_bytes() for path in files[at : at + DEVICE_CHUNK]], MAX_PIXELS)
        return sum(image is not None for image in images)

    decode(0)  # the first call sets nvJPEG up
    started = time.perf_counter()
    with ThreadPoolExecutor(DEVICE_THREADS) as pool:
        num_decoded = sum(pool.map(decode, range(0, len(files), DEVICE_CHUNK)))
    if num_decoded < len(files):
        raise RuntimeError(f"it left {len(files) - num_decoded} plain photographs to the cores")
    return len(files) / (time.perf_counter() - started)


def check_damage(files: list[Path], device: torch.device) -> dict[str, int]:
    """The results for photographs that have an end marker, but lack some of their data.

    `bare_unsteady`: those that nvJPEG by itself shows in several ways, behind other images. `shown`: those that are
    not left to the cores at least once, `unsteady`: those of them that come out in more than one way.
    """
    chance = np.random.default_rng(0)
    whole = [path.read_bytes() for path in files[:DEVICE_CHUNK]]
    damaged = [data[: int(len(data) * chance.uniform(0.2, 0.95))] + b"\xff\xd9" for data in whole]
    guarded = NvJpeg(PHOTOGRAPHIC, device)
    bare = NvJpeg(PHOTOGRAPHIC, device)
    bare._decode_twice = lambda files: (bare._decode_once(files), set())  # type: ignore[method-assign]
    counts = {"num_files": len(damaged)}
    for name, together in (("bare", bare), ("guarded", guarded)):
        ways: list[set[bytes | None]] = [set() for _ in damaged]
        for _ in range(DAMAGE_TRIALS):
            order = chance.permutation(len(damaged))
            for place, pixels in zip(order, together([damaged[place] for place in order], MAX_PIXELS), strict=True):
                ways[place].add(None if pixels is None else pixels.tobytes())
        counts[f"{name}_shown"] = sum(way != {None} for way in ways)
        counts[f"{name}_unsteady"] = sum(len(way) > 1 for way in ways)
    return counts


def median(repeats: int, work: Callable[[], float]) -> float:
    """The median of several runs."""
    return round(statistics.median(work() for _ in range(repeats)), 1)


def measure_network(subject: Subject, scratch: Path, repeats: int) -> dict[str, Any]:
    """The figures of one network."""
    classifier, name = subject.classifier, subject.version.name
    engine = TorchEngine(classifier.network, classifier.preprocessing, classifier.device, "bf16")
    model = {size: median(repeats, partial(measure_model, engine, size)) for size in BATCHES}
    best = max(model, key=lambda size: model[size])
    subject.library()  # graphs of all batch sizes are recorded
    library = median(repeats, subject.library)
    jobs = [measure_jobs(subject, scratch / f"{name}-{repeat}") for repeat in range(repeats)]
    cold, warm = (round(statistics.median(speeds), 1) for speeds in zip(*jobs, strict=True))
    shares = {"library_to_model": round(library / model[best], 3), "job_to_model": round(warm / model[best], 3)}
    print(f"{name}: model alone {model[best]:,.0f} images/s in batches of {best}")
    print(f"{name}: library {library:,.0f} ({shares['library_to_model']:.0%}), ", end="")
    print(f"job {warm:,.0f} ({shares['job_to_model']:.0%}), with the worker's start {cold:,.0f}")
    chosen = {
        "engine": classifier.engine_name,
        "batch_size": classifier.batch_size,
        "decoder": "cores" if classifier.batch_decoder is None else "nvjpeg",
    }
    speeds = {"model": model, "best_batch": best, "library": library, "job_warm": warm, "job_cold": cold}
    return chosen | speeds | shares


def measure_decoding(files: list[Path], device: torch.device, repeats: int) -> dict[str, Any]:
    """Decoding by the cores and by the GPU."""
    figures: dict[str, Any] = {}
    with multiprocessing.get_context("spawn").Pool(num_cores()) as processes:
        figures[f"{num_cores()} processes"] = median(repeats, lambda: measure_cores(files, processes))
    for num_threads in sorted({1, min(8, num_cores()), num_cores()}):
        with ThreadPoolExecutor(num_threads) as threads:
            figures[f"{num_threads} threads"] = median(repeats, partial(measure_cores, files, threads))
    try:
        figures["nvjpeg"] = median(repeats, lambda: measure_nvjpeg(files, device))
        figures["damaged"] = check_damage(files, device)
    except (OSError, RuntimeError) as err:
        print(f"nvJPEG is not measured: {str(err).splitlines()[0]}")
    print(f"decoding alone, images/s: {figures}")
    return figures


def run(num_images: int, repeats: int, device: torch.device, scratch: Path) -> dict[str, Any]:
    """Make the photographs, and measure decoding and every network."""
    contents = make_photographs(scratch / "images", num_images)
    files = sorted((scratch / "images").rglob("*.jpg"))
    decoding = measure_decoding(files[:NUM_DECODED], device, repeats)
    settings = Settings(home=scratch / "home", server_url=None)
    networks = {}
    for name in NETWORKS:
        subject = Subject(scratch / "images", publish_network(settings.models, name), settings, device.type)
        networks[name] = measure_network(subject, scratch, repeats)
    return {"contents": contents, "num_images": num_images, "decoding": decoding, "networks": networks}


def main() -> None:
    """Measure, print, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=12288, help="photographs of about 500 x 375 px")
    parser.add_argument("--repeats", type=int, default=3, help="of everything; medians are reported")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal, not kept")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("benchmarks.gpu needs a CUDA device, and torch finds none here", file=sys.stderr)
        sys.exit(UNAVAILABLE)
    with tempfile.TemporaryDirectory(prefix="ph-bench-") as scratch:
        found = run(options.num_images, options.repeats, torch.device(options.device), Path(scratch))
    if options.device == "cuda":
        keep(describe_run("gpu") | {"gpu": torch.cuda.get_device_name()} | found, "gpu")


if __name__ == "__main__":
    main()
