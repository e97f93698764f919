"""Processes whose clock a test sets: a small library that the C compiler makes, and that they load before any other."""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

CAN_SET_CLOCKS = shutil.which("gcc") is not None and os.uname().sysname == "Linux"

# Time of day with an offset in ns that lies in a file; clocks that measure intervals stay as they are.
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *offset;

__attribute__((constructor)) static void open_offset(void) {
  const char *path = getenv("SET_CLOCK");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *mapped = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
  if (mapped != MAP_FAILED) offset = mapped;
  close(file);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
  int failed = syscall(SYS_clock_gettime, clock, at);
  if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
    int64_t ns = at->tv_sec * 1000000000LL + at->tv_nsec + *offset;
    at->tv_sec = ns / 1000000000LL;
    at->tv_nsec = ns % 1000000000LL;
  }
  return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
  struct timespec now;
  if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
  at->tv_sec = now.tv_sec;
  at->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *at) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (at) *at = now.tv_sec;
  return now.tv_sec;
}
"""


class SetClock:
    """A clock for some processes: they start with `environment`, and their time of day is `set` while they run."""

    def __init__(self, folder: Path) -> None:
        """folder: where the library goes, with the file that the processes read."""
        library, offset = folder / "set_clock.so", folder / "clock-offset"
        offset.write_bytes(bytes(8))
        with offset.open("r+b") as file:
            self._offset = mmap.mmap(file.fileno(), 8)
        command = ["gcc", "-O1", "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
        subprocess.run(command, input=_SOURCE.encode(), check=True)
        self.environment = {"LD_PRELOAD": str(library), "SET_CLOCK": str(offset)}

    def set(self, seconds: float) -> None:
        """Let their clock be ahead of this machine's by so much; a negative number: behind it."""
        self._offset[:] = struct.pack("q", round(seconds * 1e9))
