"""Disks that are full or read-only, and shares of images that fail or hang."""

import contextlib
import errno
import hashlib
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.surroundings_rig import IDENTICAL, Fault, Found, Rig
from modeling.registry.store import ModelStore
from tests.support.frozen_share import CAN_MOUNT
from tests.support.published_models import make_shapes
from tests.support.server import wait_until
from tests.support.small_disk import SmallDisk

FULL_S = 8.0
_WAITS = f"work waits, the job says why, and goes on: {IDENTICAL}"
_PAUSES = f"the job is paused with the reason, and goes on: {IDENTICAL}"


def _home(rig: Rig) -> SmallDisk:
    disk: SmallDisk = rig.disks[0]
    return disk


def _outputs(rig: Rig) -> SmallDisk:
    disk: SmallDisk = rig.disks[1]
    return disk


@contextlib.contextmanager
def _full(disk: Callable[[Rig], SmallDisk], free_bytes: int, rig: Rig) -> Iterator[None]:
    with disk(rig).full(free_bytes):
        time.sleep(FULL_S)
    yield


@contextlib.contextmanager
def _read_only(disk: Callable[[Rig], SmallDisk], rig: Rig) -> Iterator[None]:
    """As soon as no file is open for writing."""
    with contextlib.ExitStack() as stack:

        def remounted() -> bool:
            with contextlib.suppress(OSError):
                stack.enter_context(disk(rig).read_only())
                return True
            return False

        wait_until(remounted, what="no file is open for writing")
        time.sleep(FULL_S)
    yield


def _full_at_the_end(rig: Rig) -> Found:
    """The disk of the output is full from before the job begins until it has been waiting for its end."""
    rig.ensure_workers()
    with _outputs(rig).full():
        job, output = rig.submit()
        wait_until(lambda: rig.cluster.record(job).trouble, what="the job says why it waits", timeout_s=120)
        trouble = rig.cluster.record(job).trouble
    found = rig.judge(job, output)
    return Found(f"{found.text}; it said {trouble!r}", found.ok)


def _full_at_submission(rig: Rig) -> Found:
    """Nothing can be written to the home when a job is submitted."""
    rig.ensure_workers()
    jobs, output = set(rig.cluster.jobs()), rig.folder / "out" / "never.csv"
    with _home(rig).full():
        done = rig.cluster.run("classify", str(rig.source), "--model", "digits", "-o", str(output), "--detach")
    left = set(rig.cluster.jobs()) - jobs
    text = f"exit {done.returncode}: {done.stderr.strip()}"
    return Found(text, done.returncode == 1 and "nothing was submitted" in text and not left)


def _training_meets_a_full_disk(rig: Rig) -> Found:
    """The home is full while a training runs: it has the weights of an undisturbed one, or says why not."""
    rig.ensure_workers()
    make_shapes(rig.folder / "shapes")
    digests = []
    for name, fault in (("calm", None), ("full", _home(rig).full)):
        job = rig.cluster.submit(
            "train", str(rig.folder / "shapes"), "--name", name, "--arch", "mlp", "--epochs", "60", "--seed", "1"
        )
        wait_until(lambda: "epoch" in rig.cluster.record(job).progress, what="it trains", timeout_s=120)  # noqa: B023
        if fault is not None:
            with fault():
                time.sleep(FULL_S)
        outcome = rig.cluster.outcome(job)
        if outcome.state != "succeeded":
            return Found(f"{outcome.state}: {outcome.error}", "No space left" in (outcome.error or ""))
        weights = ModelStore(rig.cluster.settings.models).resolve(name).path / "model.safetensors"
        digests.append(hashlib.sha256(weights.read_bytes()).hexdigest())
    return Found("the same weights" if len(set(digests)) == 1 else "other weights", len(set(digests)) == 1)


def _share(fault: Callable[[Rig], contextlib.AbstractContextManager[None]], rig: Rig) -> Found:
    """The images are on a share that fails while they are read, until the job is paused for it."""
    assert rig.share is not None
    rig.ensure_workers()
    job, output = rig.submit(rig.share.mount)
    rig.cluster.wait_for(job, 16)
    started = time.monotonic()
    with fault(rig):
        wait_until(lambda: rig.cluster.record(job).state == "paused", what="the job is paused", timeout_s=200)
        paused_s, reason = time.monotonic() - started, rig.cluster.record(job).paused_reason
    found = rig.judge(job, output)
    return Found(f"paused after {paused_s:.0f} s ({reason.partition(': ')[2]}), then {found.text}", found.ok)


def _hanging(rig: Rig) -> contextlib.AbstractContextManager[None]:
    assert rig.share is not None
    return rig.share.hanging()


def _failing(number: int, rig: Rig) -> contextlib.AbstractContextManager[None]:
    assert rig.share is not None
    return rig.share.failing(number)


def _hanging_at_submission(rig: Rig) -> Found:
    """The share hangs before a job is submitted: the command says what it waits for."""
    assert rig.share is not None
    output = rig.folder / "out" / "hung.csv"
    with rig.share.hanging():
        command = rig.cluster.start(
            "classify", str(rig.share.mount), "--model", "digits", "-o", str(output), "--detach"
        )
        log = rig.folder / "started.log"
        wait_until(lambda: f"checking {rig.share and rig.share.mount}," in log.read_text(), what="the command says it")
    command.wait(60)
    said = next(line for line in log.read_text().splitlines() if line.startswith("checking"))
    return Found(f"{said!r}, then exit {command.returncode}", command.returncode == 0)


def _fault(name: str, expected: str, inject: Callable[[Rig], Found]) -> Fault:
    return Fault(name, expected, inject, None if CAN_MOUNT else "mounting needs root and /dev/fuse")


def _disturbed(name: str, fault: Callable[[Rig], contextlib.AbstractContextManager[None]]) -> Fault:
    return _fault(name, _WAITS, lambda rig: rig.disturbed(partial(fault, rig)))


DISK_FAULTS = (
    _disturbed("disk of the home full", partial(_full, _home, 0)),
    _disturbed("disk of the home full but for 4 KiB", partial(_full, _home, 4096)),
    _disturbed("disk of the home full but for 16 KiB", partial(_full, _home, 16384)),
    _disturbed("disk of the home read-only", partial(_read_only, _home)),
    _fault("disk of the home full at submission", "one line of error, and nothing is left", _full_at_submission),
    _fault(
        "disk of the home full while a training runs", "the same weights, or the reason", _training_meets_a_full_disk
    ),
    _fault("disk of the output full when the job ends", _WAITS, _full_at_the_end),
    _fault("share of the images: EIO", _PAUSES, partial(_share, partial(_failing, errno.EIO))),
    _fault("share of the images: ESTALE", _PAUSES, partial(_share, partial(_failing, errno.ESTALE))),
    _fault("share of the images hangs", _PAUSES, partial(_share, _hanging)),
    _fault("share of the images hangs at submission", "the command says what it waits for", _hanging_at_submission),
)
