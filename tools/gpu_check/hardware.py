"""The device that is measured: a GPU and CUDA events, or, in a dry run, the CPU and the clock."""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gpu_check import results


@dataclasses.dataclass(frozen=True)
class Bench:
    """Where a measuring stage runs and where its findings go.

    Attributes:
        stage: name of the stage.
        folder: of the results.
        dry: on the CPU, with small sizes.
    """

    stage: str
    folder: Path
    dry: bool

    @property
    def device(self) -> str:
        """Of torch."""
        return "cpu" if self.dry else "cuda"

    def found(self, **row: Any) -> None:
        """Keep one finding and print it."""
        results.add(self.folder, kind="finding", stage=self.stage, **row)
        print(
            " ".join(
                f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()
            )
        )

    def wait(self) -> None:
        """Until the device has done all it was given."""
        if not self.dry:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], object], budget: float = 0.4, most: int = 50) -> dict[str, float]:
        """Median and spread of one call, warm: CUDA events around each, about `budget` seconds altogether."""
        for _ in range(2):
            start = time.perf_counter()
            call()
            self.wait()
            once = time.perf_counter() - start
        rounds = max(3, min(most, int((0.05 if self.dry else budget) / max(once, 1e-6))))
        times = self._by_clock(call, rounds) if self.dry else self._by_events(call, rounds)
        quarters = statistics.quantiles(times, n=4)
        return {"seconds": statistics.median(times), "spread": quarters[2] - quarters[0], "rounds": rounds}

    def _by_clock(self, call: Callable[[], object], rounds: int) -> list[float]:
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return times

    def _by_events(self, call: Callable[[], object], rounds: int) -> list[float]:
        pairs = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
        for begin, end in pairs:
            begin.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) / 1e3 for begin, end in pairs]

    def peak_bytes(self, call: Callable[[], object]) -> int:
        """The most memory in use during a call, all of the process's: torch's on a GPU, resident on the CPU."""
        if self.dry:
            call()
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()


def capability() -> tuple[int, int] | None:
    """Of the first GPU; None where torch finds none."""
    return torch.cuda.get_device_capability(0) if torch.cuda.is_available() else None


def facts() -> dict[str, str]:
    """What numbers depend on: machine, GPU, versions."""
    found = {
        "machine": f"{os.cpu_count()} CPU cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": f"{torch.__version__}, its CUDA {torch.version.cuda}",
    }
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        found["GPU"] = (
            f"{torch.cuda.device_count()} x {device.name}, sm_{device.major}{device.minor}, "
            f"{device.total_memory / 2**30:.0f} GiB, {device.multi_processor_count} multiprocessors"
        )
    return found
