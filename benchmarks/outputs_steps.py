"""The trainings and jobs of `benchmarks.outputs`, given to the command line of any checkout."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import describe_run
from benchmarks.outputs_data import COLOURS, copy_real, make_data
from benchmarks.outputs_document import Collection

BATCH_SIZE = 16  # images; answers may differ in the last digit between sizes, and the size is chosen by measuring
ENGINES = {  # by precision: what is taken instead of the engine that measures fastest
    "fp32": "torch fp32",
    "auto": "openvino fp32",
    "bf16": "openvino bf16",
    "int8": "openvino int8",
}
_LIMIT_S = 1800  # for one command, on a machine with much else to do


@dataclass(frozen=True)
class Training:
    """One call of `train`: the version folder that it publishes is an output."""

    model: str  # the version that it makes
    data: str
    options: str
    real: bool = False  # whether it needs the real images


TRAININGS = (
    Training("shapes@1", "shapes", "--arch mlp --epochs 4 --max-error 30%"),
    Training("shapes@2", "shapes", "--from-weights shapes@1 --epochs 1 --seed 3"),
    Training("colours@1", "colours", "--arch cnn --epochs 3 --seed 7 --max-error 20%"),
    Training("parts@1", "parts", "--arch cnn_pyramid --epochs 2 --batch-size 32 --learning-rate auto --int8"),
    Training("listed@1", "listed.csv", "--arch perceptron --epochs 3 --validation 0.2 --test 0.2"),
    Training("small@1", "listed.csv", "--arch lenet --epochs 1 --learning-rate 0.01 --test 0"),
    Training("fast@1", "colours", "--arch speednet --epochs 1"),
    Training("glyphs@1", "listed.csv", "--arch glyphnet --epochs 1 --image-size 16"),
    Training("digits@1", "real/digits", "--arch cnn --epochs 1 --max-error 10%", real=True),
    Training(
        "pets@1", "real/pets", "--arch mobilenet_v2 --from-weights {weights}/mobilenet_v2_rebuilt.pth", real=True
    ),
    Training(
        "grocery@1", "real/grocery",
        "--arch squeezenet1_1 --from-weights {weights}/squeezenet1_1_rebuilt.pth --epochs 1 --image-size 64 "
        "--max-error 40%", real=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One call of `classify`: its manifest and its summary are outputs."""

    output: str
    source: str
    model: str
    precision: str
    options: str = ""
    stdin: str = ""
    real: bool = False


JOBS = (
    Job("inbox.csv", "inbox", "shapes@1", "fp32"),
    Job("openvino.json", "inbox", "shapes@1", "auto", "--top-k 1"),
    Job("colours.jsonl", "inbox", "colours@1", "fp32", "--top-k 2 --shard-size 7"),
    Job("int8.json", "inbox", "parts@1", "int8"),
    Job("bf16.csv", "inbox", "colours@1", "bf16"),
    Job("follow.csv", "inbox", "shapes@2", "fp32", "--follow-symlinks --all-files"),
    Job("flat.jsonl", "inbox", "listed@1", "auto", "--no-recursive"),
    Job("glob.csv", "inbox/**/*-[0-2].*g", "glyphs@1", "auto"),
    Job("list.csv", "list.txt", "small@1", "auto"),
    Job("list.jsonl", "list.csv", "fast@1", "auto"),
    Job(
        "stdin.csv", "-", "shapes@1", "fp32", "--root {data}", stdin="inbox/shape-1.png\0shapes/posts/003.png\0no.png\0"
    ),
    Job("one.json", "inbox/formats/exif.jpg", "colours@1", "fp32"),
    Job("shards.jsonl", "shapes", "shapes@1", "fp32", "--shard-size 9 --top-k 6"),
    Job("pathological.csv", "real/pathological", "colours@1", "fp32", "--shard-size 100", real=True),
    Job("pets.csv", "real/pets", "pets@1", "auto", "--shard-size 32", real=True),
    Job("grocery.json", "real/grocery", "grocery@1", "fp32", "--shard-size 32 --top-k 12", real=True),
)
SCANS = ("colours", "parts", "listed.csv", "shapes")
REAL_SCANS = ("pathological", "letters", "digits", "grocery", "pets")


class Run:
    """One run of all steps on one checkout, in a folder whose path is the same for every checkout."""

    def __init__(self, checkout: Path, folder: Path, shared: Path | None) -> None:
        self.checkout, self.shared = checkout, shared
        self.data, self.home, self.out = folder / "data", folder / "home", folder / "out"
        self.collection = Collection()
        self._started = time.monotonic()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PIGEONHOLE_")}
        self._environment = kept | {
            "PYTHONPATH": str(checkout),
            "PIGEONHOLE_HOME": str(self.home),
            "PIGEONHOLE_BATCH_SIZE": str(BATCH_SIZE),
            "XDG_CONFIG_HOME": str(folder / "config"),  # nobody's settings
            "CUDA_VISIBLE_DEVICES": "",
        }

    def all_steps(self) -> Collection:
        """Make the data, do everything, and stop what was started."""
        self._check_modules()
        self._call("down")  # a run that was killed may have left its server and worker
        for folder in (self.data, self.home, self.out):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        make_data(self.data)
        if self.shared is not None:
            copy_real(self.shared, self.data / "real")
        try:
            self._call("up", "--device", "cpu")
            for step in (self._scan, self._train, self._classify, self._results, self._evaluate, self._models):
                step()
                print(f"{time.monotonic() - self._started:6.1f} s: {step.__name__.strip('_')} done", flush=True)
        finally:
            self._call("down")
        return self.collection

    def _check_modules(self) -> None:
        """See that the subprocesses import the checkout, as workers do: without the folder they are started in."""
        code = "import modeling, orchestrator, workers; print(modeling.__path__[0], workers.__path__[0], sep='\\n')"
        environment = self._environment | {"PYTHONSAFEPATH": "1"}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
        )
        for path in found.stdout.splitlines():
            if not Path(path).is_relative_to(self.checkout):
                raise SystemExit(f"{path} would be measured instead of the checkout {self.checkout}")

    def _call(self, *arguments: str, stdin: str = "", code: int = 0) -> bytes:
        """Standard output of a command, which must end with `code`."""
        command = [sys.executable, "-m", "orchestrator", *arguments]
        done = subprocess.run(
            command,
            cwd=self.checkout,
            env=self._environment,
            input=stdin.encode(),
            capture_output=True,
            timeout=_LIMIT_S,
            check=False,
        )
        if done.returncode != code:
            said = done.stderr.decode(errors="backslashreplace")
            raise SystemExit(f"pigeonhole {' '.join(arguments)} ended with {done.returncode}, not {code}:\n{said}")
        return done.stdout

    def _show(self, name: str, *arguments: str) -> None:
        """Keep what a command prints as JSON."""
        self.collection.add_json(name, self._call(*arguments, "--json"))

    # The steps

    def _scan(self) -> None:
        real = [f"real/{name}" for name in REAL_SCANS] if self.shared else []
        for name in (*SCANS, *real):
            quarantine = self.out / f"quarantine-{name.replace('/', '-')}.csv"
            self._show(f"scan {name}", "scan", str(self.data / name), "--quarantine", str(quarantine))
            self.collection.add_file(f"scan {name} --quarantine", quarantine)

    def _train(self) -> None:
        for training in TRAININGS:
            if training.real and self.shared is None:
                continue
            name, _, number = training.model.partition("@")
            options = training.options.format(weights=self.data / "real" / "weights").split()
            data = str(self.data / training.data)
            self._call("train", data, "--name", name, "--deterministic", *options)
            self.collection.add_folder(f"model {training.model}", self.home / "models" / name / number)

    def _classify(self) -> None:
        self._fix_engines()
        has_bf16 = {"avx512_bf16", "amx_bf16"} & set(describe_run("outputs")["cpu_flags"])
        for job in JOBS:
            if (self.shared or not job.real) and (has_bf16 or job.precision != "bf16"):
                self._classify_one(job)
        limited = [str(self.data / "inbox"), "--model", "shapes@1", "-o", str(self.out / "limited.csv")]
        self._call("classify", *limited, "--max-failures", "2", "--shard-size", "16", code=3)
        plan = [str(self.data / "inbox"), "--model", "shapes@1", "--precision", "fp32", "--shard-size", "16"]
        self._show("classify --plan", "classify", *plan, "--plan")

    def _fix_engines(self) -> None:
        """Write down the engines of ENGINES for every model, where jobs remember the one that measured fastest.

        One job that measures shows how the choice is named and written; its model is not asked in fp32 again.
        """
        image = str(self.data / "inbox" / "shape-0.png")
        self._call("classify", image, "--model", "listed@1", "--precision", "fp32", "-o", str(self.out / "first.csv"))
        (first,) = (self.home / "models" / "listed").rglob("fp32-*.json")
        choice, key = json.loads(first.read_bytes()), first.name.removeprefix("fp32-")
        for card in sorted((self.home / "models").glob("*/*/model.json")):
            folder = card.parent.parent / first.parent.parent.name / hashlib.sha256(card.read_bytes()).hexdigest()[:16]
            folder.mkdir(parents=True, exist_ok=True)
            for precision, engine in ENGINES.items():
                speeds = {"batch_sizes": {str(BATCH_SIZE): 1000.0}, "images_per_sec": {engine: 1000.0}}
                fixed = choice | {"engine": engine, "batch_size": BATCH_SIZE, **speeds}
                (folder / f"{precision}-{key}").write_text(json.dumps(fixed))

    def _classify_one(self, job: Job) -> None:
        manifest = self.out / job.output
        source = job.source if job.source == "-" else str(self.data / job.source)
        options = ["--model", job.model, "--precision", job.precision, "-o", str(manifest)]
        options += job.options.format(data=self.data).split()
        if "--shard-size" not in options:
            options += ["--shard-size", "16"]  # else chosen by measuring
        self._call("classify", source, *options, stdin=job.stdin)
        summary = manifest.with_name(f"{manifest.name}.summary.json")
        engines = json.loads(summary.read_bytes())["engines"]
        if engines != [ENGINES[job.precision]]:
            raise SystemExit(f"{summary}: answered by {engines}, not by {ENGINES[job.precision]} as was written down")
        self.collection.add_file(f"job {job.output}", manifest)
        self.collection.add_file(f"job {summary.name}", summary)

    def _results(self) -> None:
        shown: dict[str, Sequence[str]] = {
            "inbox.csv": ("--where", "label=posts and score<0.9"),
            "openvino.json": ("--where", "decision=reject"),
            "colours.jsonl": ("--limit", "0"),
        }
        for output, options in shown.items():
            manifest = str(self.out / output)
            self._show(f"results show {output}", "results", "show", manifest, *options)
            self._show(f"results errors {output}", "results", "errors", manifest, "--limit", "0")
            self._show(f"results verify {output}", "results", "verify", manifest)

    def _evaluate(self) -> None:
        evaluations = [("shapes@1", "shapes", "all"), ("colours@1", "colours", "test"), ("parts@1", "parts", "test")]
        evaluations += [("pets@1", "real/pets", "test")] if self.shared else []
        for model, data, part in evaluations:
            folder = self.out / f"evaluation of {model}"
            self._call("models", "evaluate", model, str(self.data / data), "--part", part, "-o", str(folder))
            self.collection.add_folder(folder.name, folder)
        compared = ["shapes@1", "shapes@2", str(self.data / "parts"), "--part", "all", "--device", "cpu"]
        self._show("models compare", "models", "compare", *compared)

    def _models(self) -> None:
        for model in ("colours@1", "parts@1"):
            file = self.out / f"{model}.onnx"
            self._show(f"models export {file.name}", "models", "export", model, "-o", str(file))
            self.collection.add_file(f"exported {file.name}", file)
        folder = self.out / "exported"
        self._show(
            "models export --format folder", "models", "export", "colours@1", "-o", str(folder), "--format", "folder"
        )
        self.collection.add_folder("exported folder", folder)
        self._call("models", "import", str(folder), "--name", "imported")
        self.collection.add_folder("model imported@1", self.home / "models" / "imported" / "1")
        self._show("models list", "models", "list")
        self._show("models architectures", "models", "architectures")
        self._show("models show", "models", "show", "parts@1")
        for name in ("colours@1", "mobilenet_v2"):
            self._show(f"models summary {name}", "models", "summary", name)
        self._explain("colours@1", f"colours/{next(iter(COLOURS))}/001.jpg")
        self._explain("listed@1", "shapes/posts/001.png", "--show", "weights")

    def _explain(self, model: str, image: str, *options: str) -> None:
        folder = self.out / f"explained {model}"
        given = ["-o", str(folder), "--device", "cpu", *options]
        self._show(f"models explain {model}", "models", "explain", model, str(self.data / image), *given)
        self.collection.add_folder(folder.name, folder)
