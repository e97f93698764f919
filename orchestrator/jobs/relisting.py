"""Lists the images of a job again, where it ended before all were listed or its listing was lost.

The new listing lies in a folder of its own, with the parts of the old one whose paths are those of its shards. It
becomes the job's when a resume names the folder; until then nothing of the job has changed.
"""

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from modeling.durable import sync, temporary_beside
from modeling.names import text_to_path
from orchestrator.contract.errors import IntegrityError, PigeonholeError, UsageError
from orchestrator.contract.jobs.job_folder import JobFolder
from orchestrator.contract.jobs.listing import ListingWriter, SourceFacts, read_facts, read_shard
from orchestrator.contract.jobs.parts import open_part, part_path
from orchestrator.contract.jobs.requests import ClassifyRequest
from orchestrator.contract.jobs.sidecar import parse_line
from orchestrator.jobs.sources import Source, open_source
from orchestrator.jobs.walk import SourceOptions

SHOW_EVERY = 10_000  # images


def open_again(folder: JobFolder, request: ClassifyRequest) -> Source:
    """The source of a job, to be listed again.

    Raises NotFoundError where it is gone, UsageError where it cannot be listed again.
    """
    reading = request.reading
    if reading is None or not request.can_be_listed_again:
        why = f"{request.source!r} cannot be listed again"
        if request.base is not None:
            why = f"were to be compared with {request.base.manifest!r}, which may be another now"
        raise UsageError(f"the images of job {folder.job} were not all listed, and {why}; submit it again")
    root = None if reading.root is None else Path(text_to_path(reading.root))
    options = SourceOptions(reading.recursive, request.follow_symlinks, reading.all_files, root)
    source = open_source(text_to_path(reading.source), options)
    if source.root != text_to_path(request.root):
        raise UsageError(f"{request.source!r} is at {source.root!r} now, and was at {request.root!r}; submit it again")
    source.peek()
    return source


@contextlib.contextmanager
def listed_again(
    folder: JobFolder, request: ClassifyRequest, run: int, on_listing: Callable[[str, int], None]
) -> Iterator[str]:
    """The name of a folder with a new listing and the parts that go with it, durable; an error removes it.

    Raises NotFoundError or UsageError where the source cannot be listed, PigeonholeError where it has changed since it
    was listed to its end.
    """
    source = open_again(folder, request)
    work = folder.path / f"run.{run}.{secrets.token_hex(3)}"
    (work / "parts").mkdir(parents=True)
    try:
        _list(source, work, request, on_listing)
        before, now = read_facts(folder.work), read_facts(work)
        if before is not None and now is not None and before.sha256 != now.sha256:
            raise PigeonholeError(
                f"the listing of job {folder.job} is damaged, and {request.source!r} holds other images now "
                f"({now.num_images}, not {before.num_images}); submit it again"
            )
        _take_parts(folder, work)
        sync(work)
        sync(folder.path)
        yield work.name
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _list(source: Source, work: Path, request: ClassifyRequest, on_listing: Callable[[str, int], None]) -> None:
    with ListingWriter(work, request.shard_size) as writer:
        for number, path in enumerate(source.paths, start=1):
            writer.add(path)
            if number % SHOW_EVERY == 0:
                writer.publish()
                on_listing(request.job, number)
        facts = writer.close(source.skipped)
    if facts.num_images == 0:
        raise UsageError(f"{request.source!r} holds no images now; bring them back, and resume again")
    SourceFacts.of(request.root, walked=source.is_walked).write(work)


def _take_parts(folder: JobFolder, work: Path) -> None:
    """Give the new listing the old parts whose paths are those of its shards."""
    facts = read_facts(work)
    for shard in range(facts.num_shards if facts else 0):
        with contextlib.suppress(IntegrityError):
            if _paths_of_part(folder.parts, shard) == read_shard(work, shard):
                _give(part_path(folder.parts, shard), part_path(work / "parts", shard))


def _paths_of_part(parts: Path, shard: int) -> list[str]:
    """The paths of a part's rows. Raises IntegrityError where there is no such part, or it is damaged."""
    file, trailer = open_part(parts, shard)
    with file:
        file.seek(trailer.rows_bytes + 1)
        lines = file.read(trailer.sidecar_bytes).splitlines()
    return [parse_line(line, f"a line of {part_path(parts, shard)}").path for line in lines]


def _give(old: Path, new: Path) -> None:
    """A second name for a part; a copy where the file system has no links."""
    with temporary_beside(new) as temporary:
        temporary.unlink()
        try:
            temporary.hardlink_to(old)
        except OSError:
            shutil.copyfile(old, temporary)
            sync(temporary)
        temporary.rename(new)
