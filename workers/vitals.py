"""What a worker uses: memory, cores and its GPUs. It goes with the heartbeat, and expires with the worker."""

import contextlib
import time

import psutil

from orchestrator.contract.devices import read_gpu_load

EVERY_S = 10.0  # finding the processes reads the whole process table


class Vitals:
    """The use by this process and its children."""

    def __init__(self, device: str) -> None:
        """device: as the operator names it, such as `cpu` or `cuda:0,1`."""
        self._gpus = [int(number) for number in device.removeprefix("cuda:").split(",") if number.isdecimal()]
        self._read: dict[str, str | int] = {}
        self._read_s = float("-inf")
        self._cpu_s: dict[int, float] = {}  # by process

    def read(self) -> dict[str, str | int]:
        """As `live_workers.VITALS`; at most ten seconds old."""
        now_s = time.monotonic()
        if now_s - self._read_s >= EVERY_S:
            self._read = self._processes(now_s - self._read_s) | self._devices()
            self._read_s = now_s
        return self._read

    def _processes(self, since_s: float) -> dict[str, str | int]:
        """since_s: seconds since the last call. What a process used before it was first seen does not count."""
        rss_bytes, used_s, cpu_s = 0, 0.0, {}
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            with contextlib.suppress(psutil.Error):  # it has just ended
                rss_bytes += process.memory_info().rss
                times = process.cpu_times()
                cpu_s[process.pid] = times.user + times.system
                used_s += max(0.0, cpu_s[process.pid] - self._cpu_s.get(process.pid, cpu_s[process.pid]))
        self._cpu_s = cpu_s
        return {"rss_bytes": rss_bytes, "cpu_milli": round(1000 * used_s / since_s)}

    def _devices(self) -> dict[str, str | int]:
        load = read_gpu_load(self._gpus) if self._gpus else None
        if load is None:
            return {}
        return {
            "gpu_milli": round(1000 * load.use),
            "gpu_used_bytes": load.used_bytes,
            "gpu_total_bytes": load.total_bytes,
        }
