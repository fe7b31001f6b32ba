"""Long videos and long runs: memory stays where it is."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

LONG = 200_000
"""Snippets: 36 hours at 25 frames a second and 16 frames a snippet."""
SHORT = LONG // 4
"""Several parts too."""
WINDOWS = {"cbp__window": 9, "vlp__window": 9}


def memory_of(process: int, field: str) -> int | None:
    """Bytes in a field of /proc/PID/status; None when the process has ended."""
    with contextlib.suppress(OSError):
        if found := re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text()):
            return 1024 * int(found[1])
    return None


def watch(wtal, field: str, *arguments: object) -> list[tuple[float, int]]:
    """Run a command to its end; (seconds, bytes in the field) all along."""
    process, began, seen = wtal.start(*arguments), time.monotonic(), []
    while (memory := memory_of(process, field)) is not None:
        seen.append((time.monotonic() - began, memory))
        time.sleep(0.02)
    done = wtal.end()
    assert done.code == 0, done.text
    return seen


def write_features(folder: Path, length: int, widths: dict[str, int]) -> None:
    """One video's features, never whole in memory."""
    random = np.random.default_rng(length)
    for kind, width in widths.items():
        (folder / kind).mkdir(parents=True)
        file = np.lib.format.open_memmap(folder / kind / "v.npy", "w+", np.float16, (length, width))
        for first in range(0, length, 10_000):
            file[first : first + 10_000] = random.standard_normal((len(file[first : first + 10_000]), width))


def test_a_long_video_takes_little_memory(tiny_of: Callable, wtal, record, long_form, tmp_path) -> None:
    """Four times the length: the features never lie in memory, only what comes out of them."""
    widths = {"i3d": 2048, "clip": 512} if long_form else {"i3d": 24, "clip": 16}
    full = {"cbp__dim": 512, "cbp__heads": 8, "cbp__levels": 3, "vlp__heads": 8, "vlp__blocks": 2} if long_form else {}
    data, run = tiny_of(widths), tmp_path / "run"
    epochs = {f"schedule__{step}_epochs": 1 for step in ("warmup", "b", "f")}
    done = wtal("train", *data.arguments(run, **WINDOWS, **full, **epochs))
    assert done.code == 0, done.text
    peaks = {}
    for length in (SHORT, LONG):
        folder = tmp_path / str(length)
        write_features(folder, length, widths)
        out = folder / "found.json"
        # The kernel keeps the peak (VmHWM): no glance now and then could be sure to see it on a busy machine.
        arguments = ("predict", run, folder / "i3d", "--clip", folder / "clip", "--branch", "ensemble", "--out", out)
        peaks[length] = watch(wtal, "VmHWM", *arguments)[-1][1]
        assert json.loads(out.read_text())["results"]["v"]
    grown = peaks[LONG] - peaks[SHORT]
    told = f"{peaks[SHORT] / 1e6:.0f} MB at {SHORT:,}, {peaks[LONG] / 1e6:.0f} MB at {LONG:,}"
    print(told)
    # Scores and their copies take about 50 MB. With the video whole in memory 200,000 snippets took 275 MB more than
    # 20,000 in the quick form; at full width the features alone would be 1.2 GB more, while blocks of 100 MB leave
    # holes in the heap.
    assert grown < (200e6 if long_form else 120e6)
    record("long video", f"wtal-predict, {LONG:,} snippets {widths['i3d']} wide", f"memory at its peak: {told}")


def test_a_long_run_takes_no_more_memory_than_a_short_one(tiny, wtal, record, long_form, tmp_path) -> None:
    """CheckpointFolder, evaluation and logs included; measured from the second tenth of the run on."""
    steps = 2000 if long_form else 300
    epochs = steps // 40  # of ten steps, in each of warm-up, control, B and F
    settings = {"batch__steps_per_epoch": 10, **{f"schedule__{step}_epochs": epochs for step in ("warmup", "b", "f")}}
    seen = watch(wtal, "RssAnon", "train", *tiny.arguments(tmp_path / "run", **settings))
    early = [memory for second, memory in seen if 0.1 < second / seen[-1][0] < 0.3]
    late = [memory for second, memory in seen if second / seen[-1][0] > 0.8]
    told = f"{np.median(early) / 1e6:.1f} MB early, {np.median(late) / 1e6:.1f} MB late"
    print(told)
    assert np.median(late) < np.median(early) + 3e6
    record("long run", f"wtal-train, {4 * epochs * 10} steps", f"own memory: {told}")
