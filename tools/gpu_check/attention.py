"""Times of attention, forward and backward, beside what a user would pick instead, and what each pass must do at least.

The shapes are a training batch's: 64 videos, 8 heads of 64, as THUMOS14's lengths cropped to 1000 or all of 1000.
Pairs (query, key) that see each other are what counts as an operation; bytes are each tensor once, without padding.
"""

from __future__ import annotations

import dataclasses

import torch
from attention_forms import FORMS, THUMOS14_LENGTHS, Form, Problem
from torch import Tensor

from gpu_check.ceilings import name
from gpu_check.hardware import Bench
from wtal.ops import temporal_attention_rows

ORDER = [("ragged", 19), ("ragged", None), ("dense", 19), ("dense", None), ("ragged", 9), ("dense", 9)]
ORDER += [("ragged", 64), ("dense", 64)]
"""The most telling cases first: the models' own windows on real lengths."""


class Rows(Form):
    """wtal on rows without padding, as the models call it."""

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        self.problem, self.fresh = problem, fresh
        self.leaves = [problem.qkv[problem.valid].contiguous().requires_grad_()]  # [R, 3, H, D]
        self.starts = problem.lengths.cumsum(0) - problem.lengths

    def __call__(self) -> Tensor:
        """``[R, H, D]``."""
        return temporal_attention_rows(*self.leaves, self.starts, self.problem.lengths, self.problem.window)


SIDES: dict[str, type[Form]] = {
    "wtal, rows": Rows,
    "wtal, packed": FORMS["wtal, packed"],
    "SDPA, mask": FORMS["SDPA, mask"],
    "SDPA, sliced a video": FORMS["SDPA, sliced a video"],
    "varlen_attn": FORMS["varlen_attn"],
}
COMPILED = {"FlexAttention, compiled": FORMS["FlexAttention, compiled"]}


@dataclasses.dataclass(frozen=True)
class Case:
    """Lengths, window and precision of what is timed."""

    kind: str
    window: int | None
    dtype: torch.dtype

    def problem(self, bench: Bench) -> Problem:
        """Random projections; the same for every side."""
        lengths = [min(length, 1000) for length in THUMOS14_LENGTHS] if self.kind == "ragged" else [1000] * 64
        heads, dim = 8, 64
        if bench.dry:
            lengths, heads, dim = [max(1, length // 16) for length in lengths[::16]], 2, 16
        torch.manual_seed(0)
        qkv = torch.randn(len(lengths), max(lengths), 3, heads, dim, device=bench.device).to(self.dtype)
        return Problem(qkv, torch.tensor(lengths, device=bench.device), self.window)


def measure(bench: Bench) -> list[str]:
    """bf16 first, then float32 where it is most asked for; what has to be compiled comes last."""
    half = torch.float32 if bench.dry else torch.bfloat16
    cases = [Case(kind, window, half) for kind, window in ORDER]
    for case in cases:
        for side, form in SIDES.items():
            time_side(bench, case, side, form)
    for kind, window in () if bench.dry else (("ragged", 19), ("ragged", None)):
        for side in ("wtal, rows", "SDPA, mask"):
            time_side(bench, Case(kind, window, torch.float32), side, SIDES[side])
    for case in cases[:1] if bench.dry else cases[:4]:
        for side, form in COMPILED.items():
            time_side(bench, case, side, form)
    return []


def time_side(bench: Bench, case: Case, side: str, kind: type[Form]) -> None:
    """Forward alone, and backward alone on a kept graph; a side that a machine does not have says why."""
    if kind.full_only and case.window is not None:
        return
    label = {"case": case.kind, "window": case.window, "dtype": name(case.dtype), "side": side}
    problem = case.problem(bench)
    heads, dim = problem.qkv.shape[3:]
    live = int(problem.lengths.sum()) * heads * dim * problem.qkv.element_size()
    work = problem.pairs() * heads * dim
    try:
        form = kind(problem)
        with torch.no_grad():
            forward = bench.seconds(form)
        bench.found(what="attention", passes="forward", **label, bytes=4 * live, flops=4 * work, **forward)
        if form.forward_only:
            return
        out = form()
        grad = torch.randn_like(out)

        def backward() -> object:
            return torch.autograd.grad(out, form.leaves, grad, retain_graph=True)

        bench.found(
            what="attention",
            passes="backward",
            **label,
            bytes=8 * live,
            flops=10 * work,
            **bench.seconds(backward),
        )
    except Exception as error:  # whatever a torch version has against a form of its own
        if side.startswith("wtal"):
            raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        bench.found(what="attention", passes="none", **label, reason=reason[:200])
