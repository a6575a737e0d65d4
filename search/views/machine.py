"""How busy this machine is: its cores, its memory, its GPUs."""

import contextlib
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

_EVERY_S = 5.0
_QUERY = ("--query-gpu=utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")
# More GPUs than this are summed up.
_EACH = 4


class Machine:
    """Looks at this machine now and then, in a thread; what cannot be found out is left out.

    Cores and memory are read from Linux's /proc, GPUs are asked through nvidia-smi where that is installed: torch would
    start CUDA in this process, which takes memory from the trials.

    Args:
        proc: Where Linux tells about itself.
    """

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._smi = shutil.which("nvidia-smi")
        self._before = self._ticks()
        self._words = ""
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="machine", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._is_over.set()

    @property
    def words(self) -> str:
        """What was seen last, in words; "" if nothing."""
        return self._words

    def look(self) -> str:
        """Look now; how busy the cores are is their mean since the last look."""
        parts = [self._cpu(), self._memory(), *self._gpus()]
        return "   ".join(part for part in parts if part)

    def _run(self) -> None:
        time.sleep(0.5)
        while True:
            with contextlib.suppress(Exception):  # nobody's search may suffer from this
                self._words = self.look()
            if self._is_over.wait(_EVERY_S):
                return

    def _cpu(self) -> str:
        before, now = self._before, self._ticks()
        self._before = now
        cores = f"{os.cpu_count()} cores"
        if before is None or now is None or now[1] <= before[1]:
            return f"load {os.getloadavg()[0]:.1f} on {cores}"
        return f"CPU {100 * (now[0] - before[0]) / (now[1] - before[1]):.0f} % of {cores}"

    def _ticks(self) -> tuple[int, int] | None:
        """Busy and all ticks of all cores since the machine started."""
        try:
            first = (self._proc / "stat").read_text().split("\n", 1)[0]
            ticks = [int(word) for word in first.split()[1:9]]
        except (OSError, ValueError):
            return None
        return sum(ticks) - ticks[3] - ticks[4], sum(ticks)

    def _memory(self) -> str:
        try:
            lines = (self._proc / "meminfo").read_text().splitlines()
            kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            total, free = kib["MemTotal"], kib["MemAvailable"]
        except (OSError, ValueError, KeyError, IndexError):
            return ""
        return f"memory {(total - free) / 2**20:.1f} of {total / 2**20:.1f} GiB"

    def _gpus(self) -> list[str]:
        if not self._smi:
            return []
        try:
            asked = subprocess.run([self._smi, *_QUERY], capture_output=True, text=True, timeout=4, check=True)
            found = [tuple(float(word) for word in line.split(",")) for line in asked.stdout.splitlines()]
            gpus = [(busy, used / 1024, total / 1024) for busy, used, total in found]
        except (OSError, ValueError, subprocess.SubprocessError):
            return []
        if len(gpus) > _EACH:
            busy, used, total = (sum(column) for column in zip(*gpus, strict=True))
            return [f"{len(gpus)} GPUs {busy / len(gpus):.0f} % {used:.0f} of {total:.0f} GiB"]
        return [f"GPU {i} {busy:.0f} % {used:.0f} of {total:.0f} GiB" for i, (busy, used, total) in enumerate(gpus)]
