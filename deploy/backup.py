#!/usr/bin/env python3
"""Copies a home while it is in use, so that what is copied can be restored: docs/operations.md.

    python3 deploy/backup.py HOME TARGET [--since BACKUP] [--also FOLDER]...

The order makes it right. A file that says that others are whole is written last, and so it is copied first: what it
speaks of is whole by then. Jobs come before models, which they name, and before the folders of their results (--also).
A file that takes the place of another is copied after it.
Files that are gone when their turn comes belong to what has ended meanwhile. TARGET appears when all is copied and
synced; a backup that fails leaves nothing. What has not changed since an earlier backup is linked to it instead of
copied. Modes and groups are kept, and owners where root runs it: nobody else may give files away.

Needs Python 3.11 alone, not Pigeonhole.
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

FIRST = ("id", "active", "webhooks", "notify.secret")
JOBS = "jobs"
LAST = ("models", "weights", "lines")
TELEGRAMS, ANSWERS = "telegrams", ".answer"
# Made again (stack: sockets, and the server's own data), or of what works now (sorts: `results sort`).
NOT_COPIED = ("cache", "stack", "sorts", "server.json", "server.crt")


class Backup:
    """A copy that is being made. since: an earlier one, with the same folders."""

    def __init__(self, target: Path, since: Path | None) -> None:
        self.target, self._since = target, since
        self.num_copied = self.num_linked = self.num_gone = 0

    def home(self, home: Path) -> None:
        """Copy what a home keeps."""
        self._copy(_followed(home), Path("home"))
        for name in FIRST:
            self._all(home, Path(name), "home")
        jobs = sorted(path.name for path in (home / JOBS).iterdir()) if (home / JOBS).is_dir() else []
        if (home / JOBS).is_dir():
            self._copy(_followed(home / JOBS), Path("home") / JOBS)
        for job in jobs:
            for path in [*(home / JOBS / job).glob("*.json"), *(home / JOBS / job).glob("run.*/*.json")]:
                self._copy(path, Path("home") / path.relative_to(home))
        for job in jobs:
            self._all(home, Path(JOBS) / job, "home", left_out=_is_fact)
        for name in LAST:
            self._all(home, Path(name), "home")
        # An answer takes the place of its item: one that comes meanwhile is copied after the items.
        self._all(home, Path(TELEGRAMS), "home", left_out=lambda name: name.suffix == ANSWERS)
        self._all(home, Path(TELEGRAMS), "home", left_out=lambda name: name.suffix != ANSWERS)

    def also(self, folder: Path) -> None:
        """Copy another folder."""
        self._all(folder, Path(), f"also/{_name_of(folder)}")

    def _all(self, base: Path, name: Path, below: str, left_out: Callable[[Path], bool] = lambda name: False) -> None:
        """Copy a file, or all files and folders below a folder. left_out: by their names below `base`.

        The folder itself may be a link, such as that of models on another disk; links in it are copied as links.
        """
        place = _followed(base / name)
        for path in _walk(place):
            inner = name / path.relative_to(place)
            if not left_out(inner):
                self._copy(path, Path(below) / inner)

    def _copy(self, source: Path, name: Path) -> None:
        target = self.target / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if source.is_dir() and not source.is_symlink():
                target.mkdir(exist_ok=True)
                _copy_rights(source, target, source.lstat())
            elif self._since and _same(source, self._since / name):
                os.link(self._since / name, target)
                self.num_linked += 1
            elif source.is_file() or source.is_symlink():
                facts = source.lstat()  # before its bytes: one that is replaced meanwhile is copied anew by the next
                shutil.copyfile(source, target, follow_symlinks=False)
                _copy_rights(source, target, facts)
                self.num_copied += 1
        except FileNotFoundError:
            if not target.is_dir():
                target.unlink(missing_ok=True)
            self.num_gone += 1


def _copy_rights(source: Path, target: Path, facts: os.stat_result) -> None:
    """Give a copy the owner, the group, the mode and the times of what it is a copy of, as far as this user may."""
    with contextlib.suppress(PermissionError):
        os.chown(target, facts.st_uid if os.geteuid() == 0 else -1, facts.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)  # after the owner, which takes some modes away
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns), follow_symlinks=False)


def _is_fact(name: Path) -> bool:
    """Whether a file of a job says that others are whole: those that have come meanwhile belong to no copy."""
    inner = name.parts[2:]  # after jobs/JOB
    return name.suffix == ".json" and (len(inner) == 1 or (len(inner) == 2 and inner[0].startswith("run.")))


def _followed(path: Path) -> Path:
    """What a link leads to; any other path, and a link to nothing, as it is."""
    return path.resolve() if path.exists() else path


def _name_of(folder: Path) -> str:
    """What a folder of results is called in a backup."""
    return str(folder).strip("/").replace("/", "-")


def _walk(path: Path) -> Iterator[Path]:
    """A file or a folder with all that is below it, folders first; nothing that is gone."""
    if not os.path.lexists(path):
        return
    yield path
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(FileNotFoundError):
            for below in sorted(path.iterdir()):
                yield from _walk(below)


def _same(source: Path, before: Path) -> bool:
    """Whether an earlier backup has the file as it is: files are replaced or grow, and are not changed in place."""
    if source.is_symlink() or not before.is_file() or before.is_symlink():
        return False
    now, then = source.stat(), before.stat()
    if os.geteuid() == 0 and (now.st_uid, now.st_gid) != (then.st_uid, then.st_gid):
        return False
    return (now.st_size, now.st_mtime_ns, now.st_mode) == (then.st_size, then.st_mtime_ns, then.st_mode)


def _fault(home: Path, target: Path, partial: Path, also: list[Path]) -> str:
    """Why these cannot be copied there; empty where they can."""
    if not (home / "id").is_file():
        return f"{home} has no file `id`: it is not a home, or it is not mounted"
    if target.exists():
        return f"{target} exists; name a folder that does not"
    for folder in also:
        if not folder.is_dir():
            return f"--also {folder} is not a folder, or it is not mounted"
    names: dict[str, Path] = {}
    for folder in also:
        other = names.setdefault(_name_of(folder), folder)
        if other != folder:
            return f"{other} and {folder} would both be also/{_name_of(folder)}; copy a folder that holds both"
    for folder in (home, *(home / name for name in (*FIRST, JOBS, *LAST, TELEGRAMS)), *also):
        if _is_within(partial, folder) or _is_within(folder, partial):
            return f"{target} lies in {folder}, which is copied; name a target elsewhere"
    return ""


def _fault_of_earlier(since: Path, partial: Path) -> str:
    """Why the files of an earlier backup cannot be linked to; empty where they can."""
    known, trial = since / "home" / "id", partial / "id"
    if not known.is_file():
        return f"--since {since} is no earlier backup: it has no file `home/id`"
    try:
        os.link(known, trial)
    except OSError as err:
        return f"--since {since}: its files cannot be linked to {partial.parent} ({err.strerror}); leave it out"
    trial.unlink()
    return ""


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path, which need not exist, is a folder or lies below it, also where that is mounted twice."""
    place = Path(os.path.realpath(path))
    return folder.is_dir() and any(each.exists() and each.samefile(folder) for each in (place, *place.parents))


def _unknown(home: Path) -> list[str]:
    """What is in a home and neither copied nor meant not to be; but for hidden files, which are temporary."""
    known = {*FIRST, JOBS, *LAST, TELEGRAMS, *NOT_COPIED}
    return sorted(path.name for path in home.iterdir() if path.name not in known and not path.name.startswith("."))


def main() -> int:
    """Make the backup; returns the exit code."""
    parser = argparse.ArgumentParser(description="Copy a home of Pigeonhole while it is in use.")
    parser.add_argument("home", type=Path, help="PIGEONHOLE_HOME")
    parser.add_argument("target", type=Path, help="folder that is made")
    parser.add_argument(
        "--since", type=Path, help="earlier backup on the same file system: what is unchanged is linked"
    )
    parser.add_argument("--also", type=Path, action="append", default=[], help="folder of results; may be repeated")
    options = parser.parse_args()
    also = list(dict.fromkeys(Path(os.path.abspath(folder)) for folder in options.also))  # noqa: PTH100 links are kept
    partial = options.target.with_name(f"{options.target.name}.partial")
    if fault := _fault(options.home, options.target, partial, also):
        print(f"error: {fault}", file=sys.stderr)
        return 2
    shutil.rmtree(partial, ignore_errors=True)  # of a backup that was killed
    try:
        partial.mkdir(mode=0o700, parents=True)
        if options.since and (fault := _fault_of_earlier(options.since, partial)):
            print(f"error: {fault}", file=sys.stderr)
            return 2
        _make(Backup(partial, options.since), options.home, options.target, also)
    except OSError as err:
        print(f"error: {err}; nothing is kept of this backup", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return 0


def _make(backup: Backup, home: Path, target: Path, also: list[Path]) -> None:
    """Copy all, put it in its place, and say what it is."""
    backup.home(home)
    for folder in also:
        backup.also(folder)
    os.sync()
    backup.target.rename(target)
    if unknown := _unknown(home):
        print(f"not copied, as nothing is known of it: {', '.join(map(repr, unknown))} in the home", file=sys.stderr)
    print(f"{target}: {backup.num_copied} files copied, {backup.num_linked} linked, {backup.num_gone} gone")


if __name__ == "__main__":
    sys.exit(main())
