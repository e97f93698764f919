"""How long a job takes to publish a million rows, and `results verify` to check them.

    python -m benchmarks.finalize                       about fifteen minutes on 2 cores, 2 GB of disk
    python -m benchmarks.finalize --rows 100000 --cases csv-4096

The parts are made by the product's own writer: rows of five labels with a decision, 3 % of them errors, and
their lines of the sidecar, in small and in large shards. The merge of a retry takes over all rows but the failed ones.
Publishing and verifying run in processes of their own, which report their seconds, those of the processor, and their
largest memory. The disk's cache is warm, as it is when a job has just ended. The last line is JSON, and is kept in
`benchmarks/results/`.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_run, keep
from benchmarks.spent import Command, Spent, in_process
from modeling.inference.prediction import Prediction
from orchestrator.contract.jobs.job_folder import JobFolder, Outcome, new_job_id
from orchestrator.contract.jobs.listing import ListingWriter, count_shards, read_shard
from orchestrator.contract.jobs.parts import write_part
from orchestrator.contract.jobs.requests import ClassifyRequest, ModelPin
from orchestrator.contract.jobs.rows import Row
from orchestrator.contract.jobs.sidecar import AsRead
from orchestrator.contract.settings import Settings
from orchestrator.jobs.merging.base import open_base
from orchestrator.jobs.merging.failed import FailedRows
from orchestrator.jobs.merging.merge import Merge
from orchestrator.jobs.results import find_published
from tests.support.fakes import FakeFinalizeLease
from workers.finalize.publish import publish_manifest

NUM_ROWS = 1_000_000
CASES = ("csv-64", "csv-4096", "jsonl-64", "jsonl-4096", "json-4096")  # format and shard size
PROMISED_S = 20.0
LABELS = tuple(f"label {number:03d}" for number in range(1000))
SCORES = (0.9, 0.05, 0.03, 0.015, 0.005)
PIN = ModelPin(name="fake", number=1, digest="d" * 64, preprocessing_digest="p" * 64)
FAILED_EVERY = 33  # row: 3 %
TIME_NS = 1_700_000_000_000_000_000  # of the last change of an image
FAILED = Prediction(error_code="corrupt", error="the data of the image are damaged", decision="reject")


@dataclass(frozen=True)
class Case:
    """A job whose shards are all done, by its format and the size of its shards."""

    name: str
    home: Path
    num_rows: int

    @property
    def settings(self) -> Settings:
        return Settings(home=self.home, server_url=None)

    @property
    def output(self) -> Path:
        return self.home.parent / f"{self.name}.{self.name.partition('-')[0]}"

    def paths(self) -> Iterator[str]:
        return (f"camera-7/2026-11-29/{number // 1000:05d}/{number:08d}.jpg" for number in range(self.num_rows))

    def make(self) -> str:
        """List the images, and write the parts."""
        folder = JobFolder.create(self.settings, self._request(self.output))
        return self._classify(folder, self.paths())

    def make_retry(self) -> str:
        """A job that tries the failed images of the first one again, and takes over all other rows."""
        base = open_base(find_published(self.settings, str(self.output)))
        merge = Merge("retry", base, replaced=False, selection=FailedRows(base, ()))
        request = self._request(self.output.with_stem(f"{self.name}-retry"))
        request = request.model_copy(update={"base": merge.to_request()})
        folder = JobFolder.create(self.settings, request, base=base.files)
        return self._classify(folder, merge.paths(folder.work, iter(()), lambda num: None))

    def _request(self, output: Path) -> ClassifyRequest:
        row_format, _, shard_size = self.name.partition("-")
        root = str(self.home)
        return ClassifyRequest.model_validate({
            "job": new_job_id("classify"), "created": datetime.now(UTC), "source": root, "root": root,
            "follow_symlinks": False, "model": PIN, "output": str(output), "output_format": row_format,
            "overwrite": False, "top_k": len(SCORES), "shard_size": int(shard_size),
        })  # fmt: skip

    def _classify(self, folder: JobFolder, paths: Iterator[str]) -> str:
        request = folder.request()
        assert isinstance(request, ClassifyRequest)
        with ListingWriter(folder.work, request.shard_size) as writer:
            for path in paths:
                writer.add(path)
            writer.close({})
        for shard in range(count_shards(folder.work)[0]):
            rows = [make_row(path) for path in read_shard(folder.work, shard)]
            write_part(
                folder.parts, shard, rows, [_as_read(row) for row in rows], row_format=request.output_format,
                seconds={"read": 0.1, "decode": 0.5, "predict": 1.4}, worker="worker-1", engine="fake fp32",
                made_with="this processor",
            )  # fmt: skip
        return folder.job


def make_row(path: str) -> Row:
    """The row of an image, by its number alone."""
    number = int(path[-12:-4])
    if number % FAILED_EVERY == 1:
        return Row(path, FAILED)
    labels = tuple(LABELS[(number * 7919 + place * 101) % len(LABELS)] for place in range(len(SCORES)))
    return Row(path, Prediction(labels, SCORES, decision="accept" if number % 10 else "review"))


def _as_read(row: Row) -> AsRead:
    return 100_000 + len(row.path), TIME_NS + int(row.path[-12:-4]), None


def publish(case: Case, job: str) -> None:
    """As a worker publishes it, without a server."""
    folder = JobFolder.open(case.settings, job)
    request = folder.request()
    assert isinstance(request, ClassifyRequest)
    totals = publish_manifest(folder, request, None, FakeFinalizeLease())  # type: ignore[arg-type]
    assert totals.num_rows == case.num_rows
    folder.write_outcome(Outcome(state="partial", ended=datetime.now(UTC), result=request.output))


def measure(case: Case) -> dict[str, Any]:
    """Publish and verify a job, then a retry of it."""
    figures: dict[str, Any] = {}
    for kind, make in (("job", Case.make), ("retry", Case.make_retry)):
        job, prepared = in_process(make, case)
        _, published = in_process(publish, case, job)
        figures[kind] = {"publish": asdict(published), "verify": asdict(_verify(case, job))}
        if kind == "retry":
            figures[kind]["prepare"] = asdict(prepared)
    return figures


def _verify(case: Case, job: str) -> Spent:
    """What the command takes, its start included."""
    text, spent = Command(["results", "verify", job], {"PIGEONHOLE_HOME": str(case.home)}).end()
    assert f" {case.num_rows} rows" in text, text
    return spent


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="FORMAT-SIZE", help="csv-64 and so on")
    parser.add_argument("--output", type=Path, help="file for the figures, instead of benchmarks/results/")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    for name in arguments.cases:
        with tempfile.TemporaryDirectory(prefix="ph-finalize-") as folder:
            figures[name] = measure(Case(name, Path(folder) / "home", arguments.rows))
        for kind, steps in figures[name].items():
            for step, spent in steps.items():
                took = f"{spent['seconds']:>9.2f} s {spent['processor_s']:>8.2f} s of processors"
                print(f"    {name:12}{kind:8}{step:10}{took}{spent['rss_mb']:>9.1f} MB", flush=True)
    keep(describe_run("finalize") | {"rows": arguments.rows, "figures": figures}, "finalize", arguments.output)
    sys.exit(
        any(figures[name]["job"][step]["seconds"] > PROMISED_S for name in figures for step in ("publish", "verify"))
    )


if __name__ == "__main__":
    main()
