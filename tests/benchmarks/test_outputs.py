"""The parts of `benchmarks.outputs` that run nothing: what is kept, what is left out, and how differences read."""

import hashlib
import json
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from benchmarks.outputs import report
from benchmarks.outputs_document import Collection, compare, read_page, without_volatile
from benchmarks.outputs_steps import ENGINES, JOBS, TRAININGS


def collect(folder: Path, **files: str | bytes) -> Collection:
    """A collection of a folder with these files; `__` in a name stands for its dot."""
    folder.mkdir()
    for name, content in files.items():
        path = folder / name.replace("__", ".")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    collection = Collection()
    collection.add_folder("x", folder)
    return collection


def onnx_file(trace: str, weight: float = 1.0) -> bytes:
    """A graph of one node that says where its code stood."""
    node = helper.make_node("Mul", ["images", "weight"], ["logits"], doc_string=trace)
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("images", "logits")]
    weights = [helper.make_tensor("weight", TensorProto.FLOAT, [1], [weight])]
    return helper.make_model(helper.make_graph([node], "main", ends[:1], ends[1:], weights)).SerializeToString()


def test_equal_outputs_are_all_the_same(capsys):
    outputs = {"outputs": {"a": {"sha256": "1"}, "b": {"sha256": "2", "document": {"x": [1, 2]}}}}

    code = report(outputs, outputs)

    assert (code, capsys.readouterr().out) == (0, "2 outputs, all the same\n")


def test_every_difference_is_printed_and_the_exit_code_is_1(capsys):
    before = {"a": {"sha256": "1"}, "b": {"sha256": "2", "document": {"x": [1, 2], "y": {}}}, "c": {"sha256": "3"}}
    after = {
        "a": {"sha256": "2"},
        "b": {"sha256": "3", "document": {"x": [1], "y": {}, "z": None}},
        "d": {"sha256": "3"},
    }

    code = report({"outputs": before}, {"outputs": after})

    assert code == 1
    assert capsys.readouterr().out.splitlines() == [
        "a: sha256 1 -> 2",
        "b: x.1: 2 -> (absent)",
        "b: z: (absent) -> null",
        "c: only before",
        "d: only after",
        "4 outputs, 5 differences",
    ]


def test_changed_lines_of_a_text_are_shown(tmp_path):
    before = collect(tmp_path / "before", rows__csv="path\na.png\nb.png\n").outputs
    after = collect(tmp_path / "after", rows__csv="path\na.png\nc.png\n").outputs

    assert list(compare(before, after)) == ["x/rows.csv: @@ -3 +3 @@", "x/rows.csv: -b.png", "x/rows.csv: +c.png"]


def test_bytes_that_differ_where_nothing_else_does_are_a_difference(tmp_path):
    before = collect(tmp_path / "before", rows__csv=b"\xe9\n", card__json='{"a": 1, "b": 2}').outputs
    after = collect(tmp_path / "after", rows__csv=b"\\xe9\n", card__json='{"b": 2, "a": 1}').outputs

    differences = list(compare(before, after))

    assert [line.partition(" -> ")[0] for line in differences] == [
        f"x/{name}: sha256 {before[f'x/{name}']['sha256']}" for name in ("card.json", "rows.csv")
    ]


def test_volatile_keys_are_left_out_at_any_depth():
    summary = {"job": "c1", "counts": {"num_images": 2}, "timings": {"seconds": 1}, "all": [{"workers": ["w"], "k": 1}]}

    assert without_volatile(summary) == {"counts": {"num_images": 2}, "all": [{"k": 1}]}


def test_a_history_is_compared_without_its_timings(tmp_path):
    before = collect(tmp_path / "before", history__csv="epoch,loss,seconds,images_per_sec\n1,0.5,0.1,100\n").outputs
    faster = collect(tmp_path / "faster", history__csv="epoch,loss,seconds,images_per_sec\n1,0.5,0.2,50\n").outputs
    better = collect(tmp_path / "better", history__csv="epoch,loss,seconds,images_per_sec\n1,0.4,0.1,100\n").outputs

    assert before == faster
    assert before != better


def test_a_graph_is_compared_without_where_its_code_stood_and_so_is_what_names_its_digest(tmp_path):
    def version(name: str, graph: bytes) -> dict[str, object]:
        card = json.dumps({"int8": {"sha256": hashlib.sha256(graph).hexdigest()}})
        collection = collect(tmp_path / name, int8__onnx=graph, model__json=card)
        collection.add_json("show", json.dumps({"digest": hashlib.sha256(card.encode()).hexdigest()}).encode())
        return collection.outputs

    here, there = version("here", onnx_file("a.py, line 1")), version("there", onnx_file("b/c.py, line 22"))
    other = version("other", onnx_file("a.py, line 1", weight=2.0))

    assert here == there
    assert {name for name in here if here[name] != other[name]} == {"x/int8.onnx", "x/model.json", "show"}
    onnx.checker.check_model(onnx.load_from_string(onnx_file("a.py")))


def test_a_report_is_read_as_text_figures_and_pictures():
    page = "<style>p {top: 1px}</style><p>Of 1,000 images\n 98.5 % are right</p><img alt='2 classes' src='data:x'>"

    read = read_page(page)

    assert read["text"] == ["Of 1,000 images 98.5 % are right", "2 classes"]
    assert read["figures"] == ["1,000", "98.5", "2"]
    assert read["pictures"] == [hashlib.sha256(b"data:x").hexdigest()]


def test_jobs_ask_models_that_are_trained_and_need_real_images_where_those_do():
    real = {training.model: training.real for training in TRAININGS}

    assert all(job.model in real and job.precision in ENGINES for job in JOBS)
    assert all(job.real for job in JOBS if real[job.model] or job.source.startswith("real/"))
    assert len({job.output for job in JOBS}) == len(JOBS)
