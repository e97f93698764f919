"""The disk of a home, or of an output, that hangs: everything that writes to it waits."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.surroundings_rig import IDENTICAL, LEASE_S, NUM_BEFORE, Fault, Found, Rig, open_rig
from orchestrator.contract.jobs.job_folder import JobFolder
from tests.support.hanging_disk import CAN_HANG, HangingDisk
from tests.support.server import wait_until

HANGING_S = 4 * LEASE_S
WHOLE_JOB_S = 30.0  # all shards are done by then, and the job's end waits for some leases
HOME, OUTPUTS = 0, 1  # among the disks of a rig


@contextlib.contextmanager
def _hanging(rig: Rig, disk: int) -> Iterator[None]:
    """For some leases."""
    with rig.disks[disk].hanging(HANGING_S):
        pass
    yield


def _home_hangs(rig: Rig) -> Found:
    """While workers do shards: nobody else may take them, since their workers live."""
    return rig.disturbed(partial(_hanging, rig, HOME), most_again=0)


def _output_hangs(rig: Rig) -> Found:
    """From the middle of the job until its end has been waiting for the disk."""
    job, output = rig.submit()
    rig.cluster.wait_for(job, NUM_BEFORE)
    with rig.disks[OUTPUTS].hanging(WHOLE_JOB_S):
        wait_until(
            lambda: rig.cluster.record(job).state == "finalizing",
            what="the shards are done",
            timeout_s=WHOLE_JOB_S - HANGING_S,
        )
        time.sleep(HANGING_S / 2)
        ended = JobFolder.open(rig.cluster.settings, job).outcome()
    found = rig.judge(job, output, most_again=0)
    return found if ended is None else Found(f"it ended as {ended.state} while its output hung", ok=False)


def _home_hangs_at_submission(rig: Rig) -> Found:
    """The command says what it does meanwhile, and goes on when the home is back."""
    output = rig.folder / "out" / "waited.csv"
    with rig.disks[HOME].hanging(HANGING_S):
        command = rig.cluster.start("classify", str(rig.source), "--model", "digits", "-o", str(output))
        time.sleep(HANGING_S - 1)
        waited = command.poll() is None
    code = command.wait(300)
    identical = output.exists() and output.read_bytes() == rig.undisturbed
    said = re.findall(r"^.*, \d+ s$", (rig.folder / "started.log").read_text(), re.MULTILINE)[:1]
    text = f"it {'waited' if waited else 'ended'} and said {said}, then exit {code}, "
    return Found(
        text + (IDENTICAL if identical else "another manifest"), waited and bool(said) and not code and identical
    )


def _fault(name: str, expected: str, inject: Callable[[Rig], Found]) -> Fault:
    """In a rig of its own, whose disks can hang."""

    def inject_there(rig: Rig) -> Found:
        folder = rig.folder / name.replace(" ", "-")
        folder.mkdir()
        with open_rig(folder, rig.num_images, HangingDisk) as own:
            return inject(own)

    return Fault(name, expected, inject_there, None if CAN_HANG else "a disk that hangs needs root and mkfs.ext4")


_WAITS = f"work waits, no shard is done again, and goes on: {IDENTICAL}"
HANGING_FAULTS = (
    _fault("disk of the home hangs", _WAITS, _home_hangs),
    _fault(
        "disk of the home hangs at submission",
        f"the command says what it does, and goes on: {IDENTICAL}",
        _home_hangs_at_submission,
    ),
    _fault("disk of the output hangs when the job ends", _WAITS, _output_hangs),
)
