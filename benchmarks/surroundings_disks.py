"""Disks that are full or read-only, and shares that fail or hang."""

from benchmarks.surroundings_rig import Fault

DISK_FAULTS: tuple[Fault, ...] = ()
