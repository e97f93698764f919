"""The parts of `make bench` that measure nothing: folders, command lines, ratios. They need no peer installed."""

import json
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.machine import describe_run
from benchmarks.peers.order import Order
from benchmarks.throughput import PeerRuns, parse
from benchmarks.throughput_folders import LARGE, PHOTOGRAPHS, make_digits, make_large, make_photographs
from benchmarks.throughput_networks import GREY, NETWORKS, publish_int8, publish_network
from benchmarks.throughput_ours import Subject
from benchmarks.throughput_peers import ALL, PEERS, ROOT, Peer, PeerError, choose_peers, command_line, read_answer
from benchmarks.throughput_report import peer_rates, shared_bound, summarise, table
from modeling.inference.choose_engine import load_fastest
from modeling.inference.classifier import Classifier
from modeling.inference.timing import random_images
from orchestrator.contract.settings import Settings


def answer(rate: float, process_s: float, num_images: int = 100) -> dict[str, object]:
    """A peer's answer, and the seconds of its process."""
    return {
        "peer": "timm",
        "num_images": num_images,
        "images_per_sec": rate,
        "seconds_process": process_s,
        "versions": {"timm": "1"},
    }


def test_decoding_and_a_network_that_share_the_cores_add_their_times():
    assert shared_bound(300.0, 150.0) == pytest.approx(100.0)


def test_a_peer_has_medians_of_its_steady_rate_and_of_its_whole_process():
    figures = peer_rates([answer(20.0, 10.0), answer(40.0, 5.0), answer(30.0, 8.0)])

    assert figures == {
        "steady": 30.0,
        "whole": 12.5,
        "steady_runs": [20.0, 40.0, 30.0],
        "whole_runs": [10.0, 20.0, 12.5],
        "versions": {"timm": "1"},
    }


def test_ratios_are_medians_of_the_ratios_within_a_repeat():
    ours = {
        "decode": [100.0, 200.0, 400.0],
        "model": [100.0, 200.0, 400.0],
        "library": [45.0, 100.0, 180.0],
        "job_cold": [10.0, 30.0, 60.0],
        "job_warm": [40.0, 90.0, 170.0],
    }
    peers = {
        "timm": peer_rates([answer(20.0, 10.0), answer(45.0, 5.0), answer(100.0, 2.5)]),
        "ray_data": {"failed": "x"},
    }

    result = summarise(ours, peers)

    assert result["images_per_sec"]["bound"] == 100.0
    assert result["ratios"] == {
        "library_to_bound": 0.9,
        "job_warm_to_bound": 0.85,
        "job_warm_to_library": 0.9,
        "library_to_timm_steady": 2.222,
        "job_warm_to_timm_steady": 2.0,
        "job_cold_to_timm_whole": 1.5,
    }
    assert json.loads(json.dumps(result)) == result


def test_int8_is_compared_with_jobs_in_full_precision_and_with_every_peer():
    ours = {
        "decode": [200.0], "model": [200.0], "library": [90.0], "job_cold": [50.0], "job_warm": [80.0],
        "library_int8": [150.0], "job_int8": [120.0],
    }  # fmt: skip

    result = summarise(ours, {"timm": peer_rates([answer(20.0, 10.0)])})

    assert result["ratios"]["job_int8_to_job_warm"] == 1.5
    assert result["ratios"]["job_int8_to_timm_steady"] == 6.0
    assert "job, warm worker, int8" in table("resnet18", result, {"timm": "timm"})


def test_table_names_everything_that_was_measured_and_why_a_peer_has_no_figures():
    ours = {name: [8.0] for name in ("decode", "model", "library", "job_cold", "job_warm")}
    peers = {"timm": peer_rates([answer(4.0, 50.0)]), "transformers": {"failed": "has no cnn"}}

    lines = table("cnn", summarise(ours, peers), {name: peer.title for name, peer in PEERS.items()}).splitlines()

    assert lines[0] == "cnn"
    assert lines[-2].split() == ["timm,", "its", "defaults", "4.0", "2.0", "2.00", "4.00"]
    assert lines[-1].split() == ["transformers", "pipeline", "has", "no", "cnn"]


def test_all_peers_leaves_out_the_optional_ones_and_a_name_chooses_them():
    assert "timm_compile" not in [peer.name for peer in choose_peers("all")]
    assert choose_peers("none") == []
    assert choose_peers("timm_compile,ray_data") == [PEERS["timm_compile"], PEERS["ray_data"]]
    with pytest.raises(ValueError, match="unknown peers darknet"):
        choose_peers("timm,darknet")


@pytest.mark.parametrize("peer", ALL, ids=lambda peer: peer.name)
def test_command_line_of_a_peer_is_one_that_its_script_takes(peer: Peer):
    command = command_line(peer, Path("images"), "resnet18", Path("rows.csv"))

    module = command[command.index("-m") + 1]
    order = Order.begin("a peer", command[command.index(module) + 1 :])
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()
    assert (order.folder, order.network, order.output) == (Path("images"), "resnet18", Path("rows.csv"))
    assert (order.batch_size, order.workers) == (peer.batch_size, peer.workers)
    assert (order.amp, order.compile) == ("--amp" in peer.flags, "--compile" in peer.flags)


def test_answer_of_a_peer_is_its_last_line_with_all_rows_in_its_file(tmp_path, capsys):
    order = Order.begin(
        "a peer", [str(tmp_path), "cnn", "--output", str(tmp_path / "r"), "--batch-size=1", "--workers=1"]
    )

    print("talk")
    order.finish("mine", iter([("a.png", 3, 0.5), ("b.png", 4, 0.25)]), order.started, ("pytest",))

    found = read_answer(capsys.readouterr().out)
    assert (found["peer"], found["num_images"], list(found["versions"])) == ("mine", 2, ["pytest"])
    assert (tmp_path / "r").read_text().split() == ["a.png,3,0.5", "b.png,4,0.25"]


@pytest.mark.parametrize("said", ["", "Killed\n"])
def test_peer_that_printed_no_answer_is_an_error(said):
    with pytest.raises(PeerError, match="printed no answer"):
        read_answer(said)


def test_peer_without_the_network_is_reported_and_not_run(tmp_path):
    runs = PeerRuns([PEERS["transformers"]], budget_s=1.0)

    runs.run(tmp_path, "cnn", 1)

    assert runs.figures() == {"transformers": {"failed": "has no cnn"}}


def test_command_line_of_the_benchmark_has_a_number_of_images_for_each_folder():
    assert parse(["--folder", "12mp", "--peers", "none"]).num_images == 80
    assert parse(["--num-images", "7"]).num_images == 7
    for wrong in (["--network", "resnet19"], ["--peers", "darknet"], ["--repeats", "0"], ["--num-images", "-1"]):
        with pytest.raises(SystemExit):
            parse(wrong)


def sizes(folder: Path) -> list[tuple[int, int]]:
    """Sizes of the images below a folder, in order."""
    found = []
    for path in sorted(folder.rglob("*.*")):
        with Image.open(path) as image:
            found.append(image.size)
    return found


def test_folders_are_made_without_any_data(tmp_path):
    nowhere = tmp_path / "nowhere"

    small = make_photographs(tmp_path / "small", 70, nowhere)
    large = make_large(tmp_path / "large", 2, nowhere)
    make_digits(tmp_path / "digits", 3)

    assert small.startswith("64 images of smooth noise")
    assert "smooth noise" in large
    assert sizes(tmp_path / "small") == [(500, 375)] * 70
    assert sizes(tmp_path / "large") == [LARGE] * 2
    assert sizes(tmp_path / "digits") == [(28, 28)] * 3


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason=f"there are no photographs at {PHOTOGRAPHS}")
def test_real_photographs_are_taken_where_they_are(tmp_path):
    what = make_photographs(tmp_path / "small", 10)

    assert what == "10 photographs of cats_dogs"
    assert all(abs(max(size) - 500) <= 1 for size in sizes(tmp_path / "small"))


@pytest.mark.parametrize("name", NETWORKS)
def test_published_network_loads_and_has_its_labels(tmp_path, name):
    version = publish_network(tmp_path / "models", name)

    classifier = Classifier.load(version.path)  # without the choice of an engine, which takes a large network long

    assert (version.name, len(classifier.labels)) == (name, 10 if name == "cnn" else 1000)


def test_int8_weights_are_published_beside_the_same_network(tmp_path):
    version = publish_network(tmp_path / "models", "cnn")

    small = publish_int8(tmp_path / "models", version, list(random_images(GREY, 16)))

    assert small.name == "cnn-int8"
    assert load_fastest(small, precision="int8").engine_name == "openvino int8"


def test_library_and_bounds_have_a_rate(tmp_path):
    make_digits(tmp_path / "images", 40)
    settings = Settings(home=tmp_path / "home", server_url=None)

    subject = Subject(tmp_path / "images", publish_network(settings.models, "cnn"), settings)

    assert min(subject.decode(), subject.library()) > 0


def test_result_says_what_the_processor_can_do():
    run = describe_run("throughput")

    assert set(run["cpu_flags"]) <= {
        "avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8",
    }  # fmt: skip
    assert run["command"].startswith("python -m benchmarks.throughput")
