"""The journal of a sort: a file in the target folder, locked while a process sorts or undoes (its lines: `lines`)."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Self

from modeling.durable import sync
from modeling.names import path_to_text
from orchestrator.contract.errors import NotFoundError
from orchestrator.sorting.lines import (
    BATCH,
    FINISHED,
    Copied,
    Folder,
    Head,
    Left,
    Line,
    SortedFile,
    SourceFolder,
    decode,
    decode_head,
    encode,
    encode_head,
)
from orchestrator.sorting.locked import InUseError, open_locked, write_whole

JOURNAL = ".pigeonhole-sort.jsonl"
NEW = ".new"  # behind its name, while it is written
_BLOCK = 1 << 16


@dataclass
class Batch:
    """Lines that were synced together; what `add_later` takes came after the changes."""

    folders: list[Folder | SourceFolder] = field(default_factory=list)
    entries: dict[int, SortedFile] = field(default_factory=dict)  # by row
    left: list[Left] = field(default_factory=list)
    copied: dict[int, Copied] = field(default_factory=dict)

    def add(self, line: Line) -> None:
        if isinstance(line, Copied):
            self.copied[line.row] = line
        elif isinstance(line, Folder | SourceFolder):
            self.folders.append(line)
        elif isinstance(line, Left) and line.row in self.entries:
            del self.entries[line.row]  # it was to go somewhere, and could not
            self.left.append(line)
        elif isinstance(line, Left):
            self.left.append(line)
        else:
            self.entries[line.row] = line

    @property
    def num_rows(self) -> int:
        return len(self.entries) + len(self.left)

    @property
    def last_row(self) -> int:
        """The number of the last row, from 1; 0 if there is none."""
        rows = [*self.entries, *(left.row for left in self.left)]
        return max(rows, default=0)


class Journal:
    """An open journal, locked. Only the end of the file is ever cut off: what a killed process was writing."""

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self.head: Head | None = None  # of a journal whose first line was not written whole
        self._opened: int | None = descriptor
        self.finished = False

    @classmethod
    def open(cls, folder: str, head: Head | None = None) -> Self:
        """Open the journal of a folder, or begin one with that head; on the disk when this returns.

        Raises InUseError where a process sorts into that folder, NotFoundError without a journal, MessageError where it
        is damaged, OSError where none can be made.
        """
        path = f"{folder}/{JOURNAL}"
        try:
            descriptor = open_locked(path, os.O_RDWR if head is None else os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except (InUseError, FileExistsError) as err:
            raise InUseError(
                f"another `results sort` or `unsort` works in {path_to_text(folder)!r}; wait for its end"
            ) from err
        except FileNotFoundError as err:
            if head is not None:
                raise
            raise NotFoundError(f"{path_to_text(folder)!r} holds no journal of a sort ({JOURNAL})") from err
        journal = cls(path, descriptor)
        try:
            if head is None:
                journal._recover()
            else:
                journal._begin(head)
        except BaseException:
            journal.close()
            raise
        return journal

    def _begin(self, head: Head) -> None:
        try:
            write_whole(self._descriptor, encode_head(head))
            sync(os.path.dirname(self.path))
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to report
                self.remove()
            raise
        self.head = head

    def _recover(self) -> None:
        """Cut off a last line that is not whole, read the head, and see whether the sort is finished."""
        size = os.fstat(self._descriptor).st_size
        end = self._last_line_end(size)
        if end != size:
            os.ftruncate(self._descriptor, end)
        os.lseek(self._descriptor, 0, os.SEEK_END)
        with open(self.path, "rb") as file:
            first = file.readline()
            if first:
                self.head = decode_head(first, self.path)
            file.seek(max(0, end - len(FINISHED)))
            self.finished = file.read() == FINISHED

    def _last_line_end(self, size: int) -> int:
        while size:
            start = max(0, size - _BLOCK)
            found = os.pread(self._descriptor, size - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
        return 0

    def append(self, batch: Batch) -> None:
        """Write what is to be done, before it is done."""
        rows: list[SortedFile | Left] = [*batch.entries.values(), *batch.left]
        rows.sort(key=lambda line: line.row)  # if only a part is written, it is that of the first rows
        lines: list[Line] = [*batch.folders, *rows]
        write_whole(self._descriptor, BATCH + b"".join(map(encode, lines)))

    def append_later(self, lines: Sequence[Copied | Left]) -> None:
        """Write of the last batch which copies are whole, and which files stay where they are after all."""
        write_whole(self._descriptor, b"".join(map(encode, lines)))

    def finish(self) -> None:
        write_whole(self._descriptor, FINISHED)
        self.finished = True

    def unfinish(self) -> None:
        """Take the last line of a finished sort away: needs no space on a full disk."""
        if self.finished:
            size = os.fstat(self._descriptor).st_size
            os.ftruncate(self._descriptor, size - len(FINISHED))
            os.fsync(self._descriptor)
            self.finished = False

    def batches(self) -> Iterator[Batch]:
        """All batches, the first one first."""
        with open(self.path, "rb") as file:
            file.readline()
            yield from _batched((decode(line, self.path) for line in file), forward=True)

    def batches_backwards(self) -> Iterator[Batch]:
        """All batches, the last one first; the lines of each are in order."""
        with open(self.path, "rb") as file:
            yield from _batched((decode(line, self.path) for line in _lines_backwards(file)), forward=False)

    def replace(self, blocks: Iterable[bytes]) -> None:
        """Put another journal in the place of this one, whole or not at all; on the disk when this returns."""
        new = f"{self.path}{NEW}"
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            for block in blocks:
                write_whole(descriptor, block)
        finally:
            os.close(descriptor)
        os.rename(new, self.path)
        sync(os.path.dirname(self.path))

    def remove(self) -> None:
        """Remove the file, and close it: NFS and FUSE keep a file that is open under a hidden name in its folder."""
        os.unlink(self.path)
        self.close()

    def close(self) -> None:
        if self._opened is not None:
            os.close(self._opened)
            self._opened = None

    @property
    def _descriptor(self) -> int:
        assert self._opened is not None, "the journal is closed"
        return self._opened


def _batched(lines: Iterator[Line | None], *, forward: bool) -> Iterator[Batch]:
    """Batches of lines; None stands for the first line of a batch, and for the end of a sort."""
    gathered: list[Line] = []
    for line in lines:
        if line is not None:
            gathered.append(line)
        elif gathered:
            yield _batch_of(gathered if forward else gathered[::-1])
            gathered = []
    if gathered and forward:
        yield _batch_of(gathered)


def _batch_of(lines: list[Line]) -> Batch:
    batch = Batch()
    for line in lines:
        batch.add(line)
    return batch


def _lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file but the first one, the last one first."""
    place = file.seek(0, os.SEEK_END)
    tail = b""
    while place:
        start = max(0, place - _BLOCK)
        file.seek(start)
        lines = (file.read(place - start) + tail).splitlines(keepends=True)
        tail = lines[0]
        yield from reversed(lines[1:])
        place = start
