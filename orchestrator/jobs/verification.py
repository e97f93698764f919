"""Verifies a manifest: against its summary, its sidecar, its job's listing and its model."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

from modeling.errors import ModelingError
from modeling.images.progress import OnProgress
from modeling.names import path_to_text
from modeling.registry.card import WEIGHTS_FILE
from modeling.registry.store import ModelStore
from orchestrator.contract.errors import IntegrityError, MessageError, NotFoundError
from orchestrator.contract.jobs.base import sha256_of
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import PathsDigest, count_shards, read_facts, read_shard
from orchestrator.contract.jobs.merge_plan import read_plan_facts
from orchestrator.contract.jobs.sidecar import read_listed, sidecar_path
from orchestrator.contract.settings import Settings
from orchestrator.jobs.results import Published

PATHS_SHOWN = 10
_REPORT_EVERY = 4096  # rows


@dataclass(frozen=True)
class Missing:
    """What an incomplete manifest lacks.

    listed: whether all images were listed before its job ended; else more are missing than `num_rows`.
    paths: the first ones, as text; empty where the job's folder is not here.
    """

    num_rows: int
    listed: bool
    reason: str
    paths: list[str]


@dataclass(frozen=True)
class Verification:
    """The result of a verification: what was compared, and every difference."""

    num_rows: int
    differences: list[str]
    checked: list[str]
    unchecked: list[str]  # not available any more, and so not compared
    missing: Missing | None = None  # None: the manifest is complete

    @property
    def ok(self) -> bool:
        """Whether the manifest is complete, and nothing differs."""
        return not self.differences and self.missing is None


def verify(
    settings: Settings, published: Published, on_progress: OnProgress = lambda done, total: None
) -> Verification:
    """Compare a manifest with its summary, its job's listing and its model, as far as these are available.

    on_progress: receives how many rows and lines of the sidecar were read, at intervals.
    """
    return _Verifier(settings, published, on_progress).run()


class _Verifier:
    """Collects differences; one method for each thing that is compared."""

    def __init__(self, settings: Settings, published: Published, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self._settings = settings
        self._published = published
        self._summary = published.summary
        self._differences: list[str] = []
        self._checked: list[str] = []
        self._unchecked: list[str] = []
        self._num_rows = 0
        self._num_read = 0
        self._missing: Missing | None = None

    def run(self) -> Verification:
        self._file()
        self._rows()
        self._sidecar()
        self._listing()
        self._model()
        return Verification(self._num_rows, self._differences, self._checked, self._unchecked, self._missing)

    def _compare(self, what: str, found: object, expected: object) -> None:
        self._checked.append(what)
        if found != expected:
            self._differences.append(f"{what}: the summary says {expected!r}, found {found!r}")

    def _file(self) -> None:
        manifest = self._published.manifest
        self._compare("manifest bytes", manifest.stat().st_size, self._summary["manifest"]["bytes"])
        self._compare("manifest sha256", sha256_of(manifest), self._summary["manifest"]["sha256"])

    def _rows(self) -> None:
        """Counts by status, label and error code, and the order and number of the paths."""
        labels: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        decisions: Counter[str | None] = Counter()
        listing = PathsDigest()
        try:
            for row in self._published.rows():
                prediction = row.prediction
                if prediction.error_code is None:
                    labels[prediction.labels[0]] += 1
                else:
                    codes[prediction.error_code] += 1
                decisions[prediction.decision] += 1
                listing.add(row.path)
                self._count()
        except (IntegrityError, UnicodeDecodeError, IndexError) as err:
            self._differences.append(f"rows: {err}")
        self._num_rows = decisions.total()
        counts, num_failed = self._summary["counts"], codes.total()
        self._compare("rows", self._num_rows, counts["num_images"])
        self._compare("rows by status", {"ok": labels.total(), "error": num_failed}, counts["status"])
        self._compare("rows that failed", num_failed, counts["num_failed"])
        self._compare("rows by label", dict(labels), counts["labels"])
        self._compare("rows by error code", dict(codes), counts["error_codes"])
        if "decisions" in counts:
            found = {name: num for name, num in decisions.items() if name}
            expected = {name: num for name, num in counts["decisions"].items() if num}
            self._compare("rows by decision", found, expected)
        self._compare("paths in listed order", listing.hexdigest(), self._summary["listing"]["sha256"])

    def _count(self) -> None:
        """Another row, or line of the sidecar, was read."""
        self._num_read += 1
        if self._num_read % _REPORT_EVERY == 0:
            self._on_progress(self._num_read, 2 * self._summary["counts"]["num_images"])

    def _sidecar(self) -> None:
        """The sidecar, if it is there: its checksum, and that its lines are those of the listed images."""
        path = sidecar_path(self._published.manifest)
        if not path.is_file():
            self._unchecked.append(f"the sidecar ({str(path)!r} is not there)")
            return
        facts = self._summary["sidecar"]
        self._compare("sidecar bytes", path.stat().st_size, facts["bytes"])
        self._compare("sidecar sha256", sha256_of(path), facts["sha256"])
        listing = PathsDigest()
        remarks: Counter[str] = Counter()
        try:
            for line, remarks_of_image in read_listed(path):
                listing.add_line(line)
                remarks.update(remarks_of_image)
                self._count()
        except IntegrityError as err:
            self._differences.append(f"sidecar: {err}")
        self._compare("paths in the sidecar", listing.hexdigest(), self._summary["listing"]["sha256"])
        self._compare("images by remark", dict(remarks), self._summary["counts"].get("remarks", {}))

    def _listing(self) -> None:
        """The listing in the job's folder, if that still exists; of a merge, all paths as its plan has them."""
        try:
            folder = JobFolder.open(self._settings, self._summary["job"])
        except NotFoundError:
            self._unchecked.append("the job's listing (its folder is not here)")
            folder = None
        if folder is not None and not any(folder.work.glob("listing*")):
            self._unchecked.append("the job's listing (`pigeonhole jobs prune` has removed it)")
            folder = None
        if "incomplete" in self._summary:
            self._incomplete(folder)
        elif folder is not None:
            self._whole_listing(folder)

    def _whole_listing(self, folder: JobFolder) -> None:
        try:
            facts, plan = read_facts(folder.work), read_plan_facts(folder.work)
            digest = sha256_of(folder.work / "listing")
        except (OSError, ValueError, MessageError) as err:
            self._differences.append(f"listing: {err}")
            return
        listed = self._summary["listing"]
        if plan is None:
            self._compare("listed images", facts and facts.num_images, listed["num_images"])
            self._compare("listing sha256", digest, listed["sha256"])
        else:
            self._compare("planned rows", plan.num_rows, listed["num_images"])
            self._compare("planned paths", plan.sha256, listed["sha256"])

    def _incomplete(self, folder: JobFolder | None) -> None:
        """What is missing: the images of the job's listing that have no row, in their order."""
        facts = self._summary["incomplete"]
        missing = Missing(facts["num_missing"], facts["listed"], facts["reason"], [])
        self._missing = missing
        if folder is None:
            return
        try:
            num_missing, paths = _without_row(folder, self._published)
        except (IntegrityError, OSError) as err:
            self._differences.append(f"listing: {err}")
            return
        self._compare("missing rows", num_missing, facts["num_missing"])
        self._missing = replace(missing, paths=paths)

    def _model(self) -> None:
        """The model version in the store, its card, and the head of a JSON manifest."""
        pin = self._summary["model"]
        try:
            version = ModelStore(self._settings.models).find(pin["ref"])
        except ModelingError:
            self._unchecked.append(f"the model {pin['ref']} (it is not in this store)")
        else:
            self._compare("model digest", version.digest, pin["digest"])
            card = version.card()
            if sha256_of(version.path / WEIGHTS_FILE) != card.weights_sha256:
                self._differences.append(f"model weights: those of {version.ref} are not the ones that its card names")
            self._checked.append("model weights")
        if self._summary["manifest"]["format"] == "json":
            self._compare("model digest in the manifest", self._head().get("model_digest"), pin["digest"])

    def _head(self) -> dict[str, Any]:
        """The facts before the predictions of a JSON manifest."""
        lines = []
        with self._published.manifest.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith('  "predictions"'):
                    break
                lines.append(line)
        try:
            # Not by pydantic: what was changed in the file is said key by key.
            head: dict[str, Any] = json.loads("".join(lines).rstrip().removesuffix(",") + "}")
        except (ValueError, RecursionError):
            return {}
        return head


def _without_row(folder: JobFolder, published: Published) -> tuple[int, list[str]]:
    """How many listed images have no row, and the first of their paths. Rows are in the order of the listing."""
    num_missing = 0
    paths: list[str] = []
    rows = iter(published.rows())
    row = next(rows, None)
    for shard in range(count_shards(folder.work)[0]):
        for path in read_shard(folder.work, shard):
            if row is not None and row.path == path:
                row = next(rows, None)
                continue
            num_missing += 1
            if len(paths) < PATHS_SHOWN:
                paths.append(path_to_text(path))
    if row is not None:
        raise IntegrityError(f"the row of {path_to_text(row.path)} is of no listed image, or out of order")
    return num_missing, paths
