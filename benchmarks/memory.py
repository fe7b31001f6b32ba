"""How much memory a call needs besides what is there before it."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable
from pathlib import Path

import torch


def peak_extra_bytes(function: Callable[[], object], device: str) -> int | None:
    """The highest amount in use during the call minus that before it; None where it cannot be known.

    On the CPU it is the resident set's (Linux), so memory that the allocator kept from earlier calls is not counted:
    call it with a function that has run at most once.
    """
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
    before = _status("VmRSS")
    function()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found[1]) if found else 0
