"""A share that hangs, fails, or has the semantics of NFS: a folder seen through FUSE, served by a process of ours.

Only what a reader of images needs. Mounting needs root and /dev/fuse; where they are absent tests are skipped.
"""

import contextlib
import ctypes
import errno
import os
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CAN_MOUNT = os.geteuid() == 0 and Path("/dev/fuse").exists()

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS, _RELEASE = 1, 2, 3, 14, 15, 17, 18
_FLUSH, _INIT, _OPENDIR, _READDIR, _RELEASEDIR, _BATCH_FORGET = 25, 26, 27, 28, 29, 42
_HEAD = struct.Struct("<IIQQIIII")  # length, operation, unique, node, uid, gid, pid, padding
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_MS_RDONLY, _MNT_DETACH = 1, 2


class Share:
    """The mount; `source` is what it shows."""

    def __init__(self, mount: Path, process: subprocess.Popen[bytes], error: Path) -> None:
        self.mount = mount
        self._process = process
        self._error = error

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Nothing that reads from it gets an answer while the block runs."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    @contextlib.contextmanager
    def failing(self, number: int) -> Iterator[None]:
        """All that is asked of it gives this error while the block runs."""
        self._error.write_text(str(number))
        try:
            yield
        finally:
            self._error.write_text("0")


@contextlib.contextmanager
def shared(source: Path, mount: Path) -> Iterator[Share]:
    """`source`, mounted at `mount`; nothing of it is remembered by the system, so that each read asks the process."""
    mount.mkdir(exist_ok=True)
    error = mount.with_name(f"{mount.name}.error")
    error.write_text("0")
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if _LIBC.mount(b"share", os.fsencode(mount), b"fuse.share", _MS_RDONLY, options):
        os.close(device)
        raise OSError(ctypes.get_errno(), "cannot mount", str(mount))
    command = [sys.executable, "-S", __file__, str(device), str(source), str(error)]
    process = subprocess.Popen(command, pass_fds=[device])
    os.close(device)
    try:
        yield Share(mount, process, error)
    finally:
        process.send_signal(signal.SIGCONT)
        _LIBC.umount2(os.fsencode(mount), _MNT_DETACH)
        process.kill()  # a process that waits for an answer gets an error
        process.wait()


class _Server:
    """Answers the requests of the system, one after another."""

    def __init__(self, device: int, source: str, error: str) -> None:
        self._device = device
        self._error = error
        self._paths = {1: source}  # by node
        self._nodes = {source: 1}
        self._files: dict[int, int] = {}
        self._answers = {
            _INIT: self._init, _LOOKUP: self._lookup, _GETATTR: self._getattr, _OPEN: self._open, _READ: self._read,
            _RELEASE: self._release, _OPENDIR: lambda *_: bytes(16), _READDIR: self._readdir,
            _STATFS: lambda *_: bytes(80), _RELEASEDIR: lambda *_: b"", _FLUSH: lambda *_: b"",
        }  # fmt: skip

    def run(self) -> None:
        """Answer until the share is unmounted."""
        while True:
            try:
                request = os.read(self._device, 1 << 18)
            except OSError as err:
                if err.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue
                return  # ENODEV: unmounted
            _, operation, unique, node, *_ = _HEAD.unpack_from(request)
            if operation in (_FORGET, _BATCH_FORGET):
                continue
            number, body = self._answer(operation, node, request[_HEAD.size :])
            with contextlib.suppress(OSError):  # the process that asked was killed
                os.write(self._device, struct.pack("<IiQ", 16 + len(body), -number, unique) + body)

    def _answer(self, operation: int, node: int, body: bytes) -> tuple[int, bytes]:
        answer = self._answers.get(operation)
        if answer is None:
            return errno.ENOSYS, b""
        try:
            with open(self._error) as file:
                number = int(file.read() or 0)
            if number and operation not in (_INIT, _RELEASE, _RELEASEDIR):
                return number, b""
            return 0, answer(node, body)
        except OSError as err:
            return err.errno or errno.EIO, b""

    def _init(self, _node: int, body: bytes) -> bytes:
        _, minor, readahead, _ = struct.unpack_from("<IIII", body)
        return struct.pack(
            "<IIIIHHIIHHIII", 7, min(minor, 31), readahead, 0, 12, 10, 1 << 17, 1, 32, 0, 0, 0, 0
        ) + bytes(16)

    def _lookup(self, node: int, body: bytes) -> bytes:
        path = f"{self._paths[node]}/{os.fsdecode(body.rstrip(bytes(1)))}"
        return self._entry(path)

    def _entry(self, path: str) -> bytes:
        facts = os.lstat(path)
        node = self._nodes.setdefault(path, len(self._nodes) + 1)
        self._paths[node] = path
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + _attributes(node, facts)

    def _getattr(self, node: int, _: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + _attributes(node, os.lstat(self._paths[node]))

    def _open(self, node: int, _: bytes) -> bytes:
        file = os.open(self._paths[node], os.O_RDONLY)
        self._files[file] = node
        return struct.pack("<QII", file, 1, 0)  # 1: direct, so that nothing is cached

    def _read(self, _: int, body: bytes) -> bytes:
        file, offset, size = struct.unpack_from("<QQI", body)
        return os.pread(file, size, offset)

    def _release(self, _: int, body: bytes) -> bytes:
        (file,) = struct.unpack_from("<Q", body)
        if self._files.pop(file, None) is not None:
            os.close(file)
        return b""

    def _readdir(self, node: int, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("<QQI", body)
        found = b""
        names = sorted(os.listdir(self._paths[node]))
        for place, name in enumerate(names[offset:], offset + 1):
            data = os.fsencode(name)
            path = f"{self._paths[node]}/{name}"
            mode = os.lstat(path).st_mode
            entry = struct.pack("<QQII", place, place, len(data), stat.S_IFMT(mode) >> 12) + data
            entry += bytes(-len(entry) % 8)
            if len(found) + len(entry) > size:
                break
            found += entry
        return found


def _attributes(node: int, facts: os.stat_result) -> bytes:
    seconds = [int(facts.st_atime), int(facts.st_mtime), int(facts.st_ctime)]
    nanoseconds = [facts.st_atime_ns % 10**9, facts.st_mtime_ns % 10**9, facts.st_ctime_ns % 10**9]
    numbers = (facts.st_mode, facts.st_nlink, facts.st_uid, facts.st_gid, 0, 4096, 0)
    return struct.pack("<6Q10I", node, facts.st_size, facts.st_blocks, *seconds, *nanoseconds, *numbers)


if __name__ == "__main__":
    _Server(int(sys.argv[1]), sys.argv[2], sys.argv[3]).run()
