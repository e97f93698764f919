"""A small disk that can be full or read-only: a tmpfs in a mount namespace of this process, where it is root's."""

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

CAN_MOUNT = os.geteuid() == 0

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_NEW_MOUNTS = 0x20000
_MS_RDONLY, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 32, 1 << 14, 1 << 18
_MNT_DETACH = 2
_FILLER = ".filler"


def leave_mounts() -> None:
    """What this process and its children mount from now on is seen by no other. Call it before threads are started."""
    if _LIBC.unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "cannot leave the mounts of other processes")
    _mount(b"none", Path("/"), None, _MS_REC | _MS_PRIVATE, None)


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.path = path
        self._size_bytes = size_bytes
        path.mkdir(parents=True, exist_ok=True)
        _mount(b"tmpfs", path, b"tmpfs", 0, f"size={size_bytes}".encode())

    def unmount(self) -> None:
        """Unmount it, also where a process still uses it."""
        _LIBC.umount2(os.fsencode(self.path), _MNT_DETACH)

    @contextlib.contextmanager
    def full(self, free_bytes: int = 0) -> Iterator[None]:
        """Nothing but so many bytes can be written to it while the block runs."""
        filler = self.path / _FILLER
        try:
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while file.write(bytes(1 << 16)):
                    pass
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while file.write(bytes(1)):
                    pass
            os.truncate(filler, max(0, filler.stat().st_size - free_bytes))
            yield
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written to it while the block runs; files that are open for writing must be closed."""
        self._remount(_MS_RDONLY)
        try:
            yield
        finally:
            self._remount(0)

    def _remount(self, flags: int) -> None:
        _mount(b"tmpfs", self.path, b"tmpfs", _MS_REMOUNT | flags, f"size={self._size_bytes}".encode())


def _mount(source: bytes, path: Path, kind: bytes | None, flags: int, options: bytes | None) -> None:
    if _LIBC.mount(source, os.fsencode(path), kind, flags, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
