"""How fast images are classified, compared with the limits of the machine and with other software.

    make bench                                            about a quarter of an hour on 2 CPU cores
    python -m benchmarks.throughput --folder 12mp --network mobilenet_v2,resnet50 --peers timm_best,dataloader

For a folder and each network, in turns, `--repeats` times: reading and decoding alone and the network alone, whose
combination bounds what these cores can do; the library in this process; a whole job through server, worker and
manifest, with the worker's start and without; every peer, in its own environment. Medians, and medians of the
ratios within a repeat. A peer's `steady` rate counts from when all is imported and built, `whole` is its process
from outside. Prints tables; the last line is JSON, and both go to `benchmarks/results/`.
"""

import argparse
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from benchmarks.throughput_folders import FOLDERS
from benchmarks.throughput_networks import NETWORKS, publish_int8, publish_network
from benchmarks.throughput_ours import Subject, measure_jobs
from benchmarks.throughput_peers import PEERS, PYTHON, Peer, PeerError, choose_peers, run_peer
from benchmarks.throughput_report import peer_rates, summarise, table
from orchestrator.contract.settings import Settings

NUM_IMAGES = {"photographs": 500, "12mp": 80, "digits": 10_000}


class PeerRuns:
    """The peers' results so far; a peer that failed is not run again."""

    def __init__(self, peers: list[Peer], budget_s: float) -> None:
        self._peers = peers
        self._budget_s = budget_s
        self._answers: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._failed: dict[str, str] = {}

    def run(self, folder: Path, network: str, num_images: int) -> None:
        """Run each peer once."""
        for peer in self._peers:
            if peer.name not in self._failed:
                _log(f"{network}: {peer.title}")
                try:
                    self._answers[peer.name].append(run_peer(peer, folder, network, num_images, self._budget_s))
                except PeerError as err:
                    self._failed[peer.name] = str(err)
                    _log(f"{network}: {peer.title} {err}")

    def figures(self) -> dict[str, dict[str, Any]]:
        """The medians of each peer, or why it has none."""
        return {
            peer.name: {"failed": self._failed[peer.name]}
            if peer.name in self._failed
            else peer_rates(self._answers[peer.name])
            for peer in self._peers
        }


def measure(
    subject: Subject, small: Subject | None, peers: list[Peer], repeats: int, budget_s: float, scratch: Path
) -> dict[str, Any]:
    """The result of one network; `small` is the same in int8."""
    ours: dict[str, list[float]] = defaultdict(list)
    runs = PeerRuns(peers, budget_s)
    network = subject.version.name
    for repeat in range(repeats):
        _log(f"{network}: repeat {repeat + 1} of {repeats}")
        ours["decode"].append(subject.decode())
        ours["model"].append(subject.model())
        ours["library"].append(subject.library())
        cold, warm = measure_jobs(subject, scratch / f"out-{network}-{repeat}")
        ours["job_cold"].append(cold)
        ours["job_warm"].append(warm)
        if small is not None:
            ours["library_int8"].append(small.library())
            _, warm = measure_jobs(small, scratch / f"out-{network}-int8-{repeat}")
            ours["job_int8"].append(warm)
        runs.run(subject.folder, network, len(subject.paths))
    engines = {"engine": subject.classifier.engine_name, "batch_size": subject.classifier.batch_size}
    return engines | summarise(ours, runs.figures())


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exit if it is not valid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", choices=FOLDERS, default="photographs", help="what is classified")
    parser.add_argument("--network", default="resnet18", help=f"networks, with commas, of {', '.join(NETWORKS)}")
    parser.add_argument("--num-images", type=int, help=f"images in the folder; default: {NUM_IMAGES}")
    parser.add_argument("--repeats", type=int, default=3, help="of everything; medians are reported")
    parser.add_argument("--peers", default="all", help=f"none, all, or with commas of {', '.join(PEERS)}")
    parser.add_argument("--int8", action="store_true", help="measure the library and warm jobs in int8, too")
    parser.add_argument("--budget", type=float, default=180.0, help="seconds that one run of a peer may take")
    parser.add_argument("-o", "--output", type=Path, help="file of the result; default: in benchmarks/results")
    options = parser.parse_args(arguments)
    options.num_images = options.num_images or NUM_IMAGES[options.folder]
    options.network = options.network.split(",")
    if unknown := set(options.network) - set(NETWORKS):
        parser.error(f"unknown networks {', '.join(sorted(unknown))}; choose of {', '.join(NETWORKS)}")
    if options.num_images < 1 or options.repeats < 1:
        parser.error("--num-images and --repeats must be 1 or more")
    try:
        options.peers = choose_peers(options.peers)
    except ValueError as err:
        parser.error(str(err))
    return options


def run(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Make the folder, measure every network and print its table."""
    _log(f"making {options.num_images} images")
    contents = FOLDERS[options.folder](scratch / "images", options.num_images)
    settings = Settings(home=scratch / "home", server_url=None)
    load_before, _, _ = os.getloadavg()
    networks: dict[str, Any] = {}
    for network in options.network:
        subject = Subject(scratch / "images", publish_network(settings.models, network), settings)
        small = _in_int8(subject) if options.int8 else None
        networks[network] = measure(subject, small, options.peers, options.repeats, options.budget, scratch)
        print(table(network, networks[network], {name: peer.title for name, peer in PEERS.items()}), flush=True)
    return describe_run("throughput") | {
        "folder": options.folder,
        "contents": contents,
        "num_images": options.num_images,
        "repeats": options.repeats,
        "peers": {peer.name: shlex.join([peer.module, *peer.flags]) for peer in options.peers},
        "load_before": round(load_before, 2),  # a machine that is not quiet gives no absolute figures
        "networks": networks,
    }


def _in_int8(subject: Subject) -> Subject | None:
    """The same folder and network with int8 weights; None if jobs would not choose them."""
    version = publish_int8(subject.settings.models, subject.version, list(subject.batch))
    small = Subject(subject.folder, version, subject.settings)
    if "int8" in small.classifier.engine_name:
        return small
    _log(f"{subject.version.name}: int8 is left out, {small.classifier.engine_name} measures faster")
    return None


def main() -> None:
    """Measure, print, and keep the result."""
    options = parse()
    if options.peers and not PYTHON.exists():
        sys.exit(f"the peers have no environment at {PYTHON.parents[1]}; `make bench` makes it, or say --peers none")
    with tempfile.TemporaryDirectory(prefix="ph-bench-") as scratch:
        result = run(options, Path(scratch))
    keep(result, "throughput", options.output)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
