"""Exports a manifest, or some of its rows, to what other programs read."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from modeling.images.progress import OnProgress
from orchestrator.contract.errors import UsageError
from orchestrator.contract.jobs.formats import Format
from orchestrator.export import coco, cvat, label_studio, tables, ultralytics
from orchestrator.export.rows import RowSelection, Survey
from orchestrator.export.targets import Target
from orchestrator.jobs.derived_outputs import check_derived_file, check_derived_folder
from orchestrator.jobs.row_images import named_root

TABLES = ("csv", "json", "jsonl")
BESIDE = {"label-studio": ".config.xml", "cvat": ".labels.json"}  # a second file, without which the first is not read
Opened = Callable[[Path], AbstractContextManager[IO[bytes]]]
PREFIXED = ("label-studio", "cvat", "coco")


@dataclass(frozen=True)
class ExportSpec:
    """What an operator asks for.

    prefix: what stands before each path, None for the target's default. excel: CSV as Excel opens it.
    """

    target: Target
    output: Path
    prefix: str | None = None
    excel: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written. left_out: rows that were not, by reason. num_altered: images whose names stand otherwise."""

    files: list[Path]
    num_images: int
    left_out: dict[str, int] = field(default_factory=dict)
    num_altered: int = 0


def check_export(spec: ExportSpec, selection: RowSelection) -> None:
    """Raises UsageError for options that do not fit, or an output that cannot be written."""
    if spec.excel and spec.target != "csv":
        raise UsageError(f"--excel is for --to csv, not for --to {spec.target}")
    if spec.prefix is not None and spec.target not in PREFIXED:
        raise UsageError(f"--prefix is for --to {', '.join(PREFIXED)}, not for --to {spec.target}")
    if spec.target == "ultralytics":
        if spec.overwrite:
            raise UsageError(
                "--overwrite replaces files; --to ultralytics writes a folder: name one that does not exist"
            )
        check_derived_folder(spec.output, selection.published)
        return
    for file in _files(spec):
        check_derived_file(file, selection.published, overwrite=spec.overwrite)


def export(spec: ExportSpec, selection: RowSelection, opened: Opened, progress: OnProgress) -> Exported:
    """Write the files, or the folder, of an export; each appears whole.

    opened: opens an output for writing, which appears when the block ends.

    Raises IntegrityError if the manifest is damaged, NotFoundError if images are copied and the source is away.
    """
    survey = selection.survey()
    left_out = {} if spec.target in TABLES else {"without an answer": survey.num_rows - survey.num_answered}
    if spec.target == "ultralytics":
        left_out |= ultralytics.write_dataset(selection, survey, spec.output, progress)
    else:
        if spec.target in BESIDE:
            made = label_studio.interface if spec.target == "label-studio" else cvat.label_specification
            with opened(_files(spec)[1]) as file:
                file.write(made(survey.labels))
        with opened(spec.output) as file:
            _writer(spec, selection, survey)(file, progress)
    num_images = survey.num_rows - sum(left_out.values())
    num_altered = survey.num_altered if spec.target in PREFIXED else 0
    return Exported(_files(spec), num_images, {why: num for why, num in left_out.items() if num}, num_altered)


def _files(spec: ExportSpec) -> list[Path]:
    beside = BESIDE.get(spec.target)
    return [spec.output, *([spec.output.with_name(spec.output.name + beside)] if beside else [])]


def _writer(spec: ExportSpec, selection: RowSelection, survey: Survey) -> Callable[[IO[bytes], OnProgress], None]:
    """What writes the file of a spec."""
    if spec.excel:
        return lambda file, progress: tables.write_sheet(selection, file, progress)
    if spec.target in TABLES:
        kind = cast(Format, spec.target)
        return lambda file, progress: tables.write_table(selection, survey, kind, file, progress)
    if spec.target == "label-studio":
        default = label_studio.default_prefix(named_root(selection.published))
        prefix = default if spec.prefix is None else spec.prefix
        return lambda file, progress: label_studio.write_tasks(selection, prefix, file, progress)
    write = cvat.write_annotations if spec.target == "cvat" else coco.write_document
    return lambda file, progress: write(selection, survey, spec.prefix or "", file, progress)
