"""The disk of a line's answers, or of a hot folder, is full."""

import contextlib
import time
from pathlib import Path

from benchmarks.surroundings_disks import FULL_S
from benchmarks.surroundings_rig import Fault, Found, Rig
from orchestrator.contract.lines.answers import request_key
from orchestrator.contract.lines.archive import AnswerArchive
from orchestrator.contract.lines.mover import AnswerMover, MoveBounds
from orchestrator.contract.lines.registry import answers_folder
from orchestrator.hot_folder.folders import open_hot_folder
from tests.support.frozen_share import CAN_MOUNT
from tests.support.hot_folders import HotFolderProcesses, Scans
from tests.support.pushes import Pusher, digit_png, open_line, registry_of
from tests.support.server import wait_until
from tests.support.small_disk import SmallDisk

NUM_ITEMS = 40
LINE = "post"


def _line(rig: Rig) -> Pusher:
    """The line of this run, which both workers serve."""
    rig.ensure_workers()
    registry = registry_of(rig.cluster)
    if LINE in registry.names():
        return Pusher(registry.store(registry.get(LINE)))
    return open_line(rig.cluster, LINE, workers=2, keep_images_s=0)


def _answers_meet_a_full_disk(disk: SmallDisk, rig: Rig) -> Found:
    """Items are pushed before and while the disk is full; then all answers lie in files, and none on the server."""
    pusher = _line(rig)
    items = [f"item-{number}" for number in range(NUM_ITEMS)]
    answers = [pusher.ask(item, digit_png(number)) for number, item in enumerate(items[::2])]
    archive = AnswerArchive(answers_folder(registry_of(rig.cluster).folder(LINE)))
    mover = AnswerMover(pusher.store, archive, MoveBounds(keep=0, move_from=1, grace_s=0.0))  # workers wait for 30,000
    refused = 0
    with disk.full():
        answers += [pusher.ask(item, digit_png(NUM_ITEMS + number)) for number, item in enumerate(items[1::2])]
        for _ in range(3):
            try:
                mover.move(_now_ms(pusher))
            except OSError:
                refused += 1
    while pusher.store.client.zcard(pusher.store.key("answered")):
        mover.move(_now_ms(pusher))
    archive.segments()
    lost = [item for item in items if archive.find(request_key(item, 1)) is None]
    late = [answer.item for answer in answers if answer.reason == "late"]
    text = f"{len(items) - len(lost)} of {len(items)} answers in files after {refused} refusals, {len(late)} late"
    return Found(text, refused == 3 and not lost and not late)


def _now_ms(pusher: Pusher) -> int:
    seconds, microseconds = pusher.store.client.time()
    return seconds * 1000 + microseconds // 1000


def _hot_folder_is_full(disk: SmallDisk, rig: Rig) -> Found:
    """Files are dropped before and while the folder's disk is full; then each lies in `done/` with its result."""
    _line(rig)
    scans = Scans(open_hot_folder(disk.path / "scans").path)
    environment = {"PIGEONHOLE_HOME": str(rig.cluster.home), "PIGEONHOLE_SERVER_URL": rig.cluster.server.url}
    arguments = ["--line", LINE, "--poll", "100ms"]
    processes = HotFolderProcesses(scans.path, arguments, environment, log=rig.folder / "hot-folder.log")
    names = [f"{number:03}.png" for number in range(NUM_ITEMS)]
    staged = disk.path / "staged"
    staged.mkdir()
    for number, name in enumerate(names):
        (staged / name).write_bytes(digit_png(1000 + number))
    with contextlib.closing(processes):
        processes.start()
        _drop(staged, scans, names[::2])
        wait_until(lambda: scans.names("done"), what="a file is done")
        with disk.full():
            _drop(staged, scans, names[1::2])
            time.sleep(FULL_S)
        wait_until(lambda: len(scans.names("done")) == 2 * NUM_ITEMS, what="all files are done", timeout_s=120)
        processes.stop()
        left = [name for part in ("in", "working", "error") for name in (*scans.names(part), *scans.hidden(part))]
        unanswered = [name for name in names if not scans.sidecar(name)["bin"]]
    text = f"{NUM_ITEMS} of {NUM_ITEMS} files in done/, each with its result"
    return Found(text, not unanswered and not left)


def _drop(staged: Path, scans: Scans, names: list[str]) -> None:
    for name in names:
        (staged / name).rename(scans.path / "in" / name)


_SKIP = None if CAN_MOUNT else "mounting needs root and /dev/fuse"

LINE_FAULTS = (
    Fault(
        "disk of the home full while a line answers", "no answer is late or lost",
        lambda rig: _answers_meet_a_full_disk(rig.disks[0], rig), _SKIP,
    ),
    Fault(
        "disk of a hot folder full", "its files wait, and each gets one result",
        lambda rig: _hot_folder_is_full(rig.disks[1], rig), _SKIP,
    ),
)  # fmt: skip
