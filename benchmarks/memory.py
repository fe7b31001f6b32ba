"""How much memory a call needs besides what is there before it."""

from __future__ import annotations

import ctypes
import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch


def peak_extra_bytes(function: Callable[[], object], device: str, warm: bool = True) -> int | None:
    """The highest amount in use during the call minus that before it; None where it cannot be known.

    ``warm`` calls it before as well, so that what is there only once does not count.

    On the CPU it is the resident set's (Linux with glibc), for which large blocks go back to the system when they are
    freed, as they otherwise do not.
    """
    if warm:
        function()
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return torch.cuda.max_memory_allocated() - before
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except OSError:
        return None
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_MMAP_THRESHOLD, 2**16)
    if warm:
        function()  # what it frees goes back from here on
    libc.malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    function()
    peak = _status("VmHWM") - before
    libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # where glibc's own rule ends up
    return peak


_M_MMAP_THRESHOLD = -3


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0
