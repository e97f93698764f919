"""Running the peers of `benchmarks.throughput`: each in its own process, in the environment `.venv-peers`."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),  # Ray's actors import the networks, too
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Peer:
    """Other software that classifies a folder.

    module: of `benchmarks.peers`. optional: left out of `--peers all`.
    """

    name: str
    title: str
    module: str
    batch_size: int = 32
    workers: int = CORES
    flags: tuple[str, ...] = ()
    without: tuple[str, ...] = ()  # networks that it does not have
    optional: bool = False


_BEST = ("--amp", "--channels-last")
ALL = (
    Peer("timm", "timm, its defaults", "timm_inference", batch_size=256, workers=2),
    Peer("timm_channels", "timm, channels_last", "timm_inference", flags=("--channels-last",)),
    Peer("timm_best", "timm, bf16, channels_last", "timm_inference", flags=_BEST),
    Peer("timm_compile", "timm, bf16, compiled", "timm_inference", flags=(*_BEST, "--compile"), optional=True),
    Peer("ray_data", "Ray Data", "ray_data"),
    Peer("dataloader", "torch DataLoader", "dataloader"),
    Peer("transformers", "transformers pipeline", "transformers_pipeline", without=("cnn",)),
)
PEERS = {peer.name: peer for peer in ALL}


class PeerError(Exception):
    """A peer failed to give figures; the message says why."""


def choose_peers(names: str) -> list[Peer]:
    """The peers of a list with commas; `none`, or `all` that are not optional.

    Raises:
        ValueError: a name that no peer has.
    """
    if names in ("none", "all"):
        return [peer for peer in ALL if names == "all" and not peer.optional]
    wanted = names.split(",")
    if unknown := set(wanted) - set(PEERS):
        raise ValueError(f"unknown peers {', '.join(sorted(unknown))}; choose none, all or of {', '.join(PEERS)}")
    return [PEERS[name] for name in wanted]


def command_line(peer: Peer, folder: Path, network: str, output: Path) -> list[str]:
    """The command that starts a peer."""
    return [
        str(PYTHON), "-m", f"benchmarks.peers.{peer.module}", str(folder), network, "--output", str(output),
        "--batch-size", str(peer.batch_size), "--workers", str(peer.workers), *peer.flags,
    ]  # fmt: skip


def run_peer(peer: Peer, folder: Path, network: str, num_images: int, budget_s: float) -> dict[str, Any]:
    """A peer's answer to the folder, and `seconds_process`: of its whole process, timed from here.

    Raises:
        PeerError: it has no such network, needed longer than `budget_s`, failed, or left images out.
    """
    if network in peer.without:
        raise PeerError(f"has no {network}")
    with tempfile.TemporaryDirectory(prefix="ph-peer-") as scratch:
        command = command_line(peer, folder, network, Path(scratch) / "rows.csv")
        started = time.perf_counter()
        stdout = _communicate(command, Path(scratch), budget_s)
        seconds = time.perf_counter() - started
    answer = read_answer(stdout)
    if answer["num_images"] != num_images:
        raise PeerError(f"answered {answer['num_images']} of {num_images} images")
    return answer | {"seconds_process": round(seconds, 3)}


def read_answer(stdout: str) -> dict[str, Any]:
    """The JSON on the last line of what a peer printed.

    Raises:
        PeerError: there is none.
    """
    try:
        answer: dict[str, Any] = json.loads(stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as err:
        raise PeerError(f"printed no answer but {stdout[-100:]!r}") from err
    return answer


def _communicate(command: Sequence[str], scratch: Path, budget_s: float) -> str:
    """The output of the command; it and its children are killed after the time limit."""
    with (scratch / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=scratch, env=os.environ | ENVIRONMENT
        )
        try:
            stdout, _ = process.communicate(timeout=budget_s)
        except subprocess.TimeoutExpired:
            raise PeerError(f"needed more than {budget_s:.0f} s") from None
        finally:
            _kill(process)
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["it printed nothing"])[-1]
    if process.returncode:
        raise PeerError(f"ended with {process.returncode}: {last}")
    return stdout


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process that still runs, and those that it started."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        process.communicate()
