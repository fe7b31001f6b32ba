"""One B step and one F step of the full-size branches: time of forward, backward and optimiser, and peak memory."""

from __future__ import annotations

import torch
from training_step import LENGTHS, Step

from gpu_check.hardware import Bench

BRANCHES = {"B step": "vlp", "F step": "cbp"}


def measure(bench: Bench) -> list[str]:
    """wtal in both precisions on THUMOS14's lengths and on a batch without padding; SDPA with a mask beside it."""
    batches = {"ragged": LENGTHS, "dense": [1000] * 64}
    if bench.dry:
        batches = {"ragged": [9, 17]}
    for kind, lengths in batches.items():
        for precision in ("bf16", "float32"):
            for name, branch in BRANCHES.items():
                for side in ("wtal", "SDPA, mask") if kind == "ragged" and not bench.dry else ("wtal",):
                    one(bench, name, branch, side, kind, lengths, precision)
    return []


def one(bench: Bench, name: str, branch: str, side: str, kind: str, lengths: list[int], precision: str) -> None:
    """Time and peak; memory that is not enough is a finding, not an end."""
    label = {"what": name, "side": side, "case": kind, "dtype": precision, "videos": len(lengths)}
    try:
        step = Step(branch, side, lengths, bench.device, bf16=precision == "bf16")
        peak = bench.peak_bytes(step)
        bench.found(**label, peak=peak, **bench.seconds(step, budget=1.0, most=10))
    except torch.OutOfMemoryError as error:
        bench.found(**label, reason=str(error).splitlines()[0][:200])
    if not bench.dry:
        torch.cuda.empty_cache()
