"""What is published, without what differs between two undisturbed runs; and what should not be there afterwards."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.contract.errors import PigeonholeError
from orchestrator.contract.jobs.job_folder import JobFolder, active_jobs
from orchestrator.contract.jobs.rows import summary_path
from orchestrator.contract.jobs.sidecar import sidecar_path
from orchestrator.contract.settings import Settings
from orchestrator.jobs.results import find_published
from orchestrator.jobs.verification import verify

# Of a summary: who did what, when, and how fast; `attempts` and `merge` name jobs.
_VOLATILE = ("job", "timings", "workers", "history")
_JOB = "<job>"


def published(*outputs: Path) -> dict[str, bytes]:
    """The files of these manifests by name, those that are missing left out: manifests and sidecars to the byte,
    summaries without what differs between two runs."""
    found = {}
    for output in outputs:
        for path in (output, sidecar_path(output), summary_path(output)):
            with contextlib.suppress(FileNotFoundError):
                found[path.name] = path.read_bytes()
        if summary_path(output).name in found:
            found[summary_path(output).name] = _without_volatile(found[summary_path(output).name])
    return found


def _without_volatile(summary: bytes) -> bytes:
    values: dict[str, Any] = json.loads(summary)
    jobs = [values["job"], *(each["job"] for each in values.get("attempts", ()))]
    kept = {name: value for name, value in values.items() if name not in _VOLATILE}
    kept.get("manifest", {}).pop("path", None)
    kept.get("sidecar", {}).pop("path", None)
    text = json.dumps(kept, indent=1, sort_keys=True)
    for job in jobs:
        text = text.replace(job, _JOB)
    return text.encode()


def differences(expected: Mapping[str, bytes], found: Mapping[str, bytes]) -> list[str]:
    """What differs between two results, a line each; the one comparison of all kinds of results."""
    lines = [f"{name} is missing" for name in expected.keys() - found.keys()]
    lines += [f"{name} should not be there" for name in found.keys() - expected.keys()]
    for name in sorted(expected.keys() & found.keys()):
        if expected[name] != found[name]:
            lines.append(f"{name} differs: {_first_difference(expected[name], found[name])}")
    return lines


def _first_difference(expected: bytes, found: bytes) -> str:
    for number, (wanted, there) in enumerate(zip(expected.splitlines(), found.splitlines(), strict=False), start=1):
        if wanted != there:
            return f"line {number} is {there[:120]!r}, not {wanted[:120]!r}"
    return f"{len(found)} bytes, not {len(expected)}"


def unverified(settings: Settings, *outputs: Path) -> list[str]:
    """What `results verify` says of manifests."""
    lines = []
    for output in outputs:
        try:
            lines += verify(settings, find_published(settings, str(output))).differences
        except PigeonholeError as err:
            lines.append(str(err))
    return lines


def left_behind(settings: Settings, jobs: Iterable[str], *folders: Path) -> list[str]:
    """Temporary files in the folders of ended jobs and in folders of outputs, and jobs that are active still."""
    lines = [f"{job} is active" for job in set(active_jobs(settings)) & set(jobs)]
    for job in jobs:
        folder = JobFolder(settings, job)
        for place in (folder.path, folder.parts, *folders):
            lines += [f"{path} is left" for path in place.glob(".*.tmp")] if place.is_dir() else []
    return sorted(set(lines))
