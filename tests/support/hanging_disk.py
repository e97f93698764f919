"""A disk that hangs: an ext4 file system in a file, which the kernel freezes.

While it is frozen, processes that write to it wait in the kernel, where no signal reaches them, as those of a hard NFS
mount do whose server is away. What was read before can still be read. Mounting needs root and loop devices.
"""

import contextlib
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.support.small_disk import CAN_MOUNT

CAN_HANG = CAN_MOUNT and None not in map(shutil.which, ("mkfs.ext4", "fsfreeze")) and Path("/dev/loop-control").exists()


class HangingDisk:
    """A mounted ext4 file system, whose blocks are a file beside it."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        blocks = path.with_name(f"{path.name}.blocks")
        with blocks.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(blocks)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(blocks), str(path)], check=True, capture_output=True)

    def unmount(self) -> None:
        """Unmount it, also where a process still uses it."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, capture_output=True)

    @contextlib.contextmanager
    def hanging(self, seconds: float) -> Iterator[None]:
        """What writes to it waits for so long; the block ends after that.

        Another process freezes it, and thaws it in any case: this one may be among those that wait.
        """
        freeze, thaw = (f"fsfreeze --{what} {shlex.quote(str(self.path))}" for what in ("freeze", "unfreeze"))
        script = f"{freeze} && echo frozen; sleep {seconds}; {thaw}"
        with subprocess.Popen(["setsid", "sh", "-c", script], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"frozen\n"
            yield
