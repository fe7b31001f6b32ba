"""Times of soft_nms, group_proposals and the whole way from scores to detections, beside wtal's CPU on this machine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from workloads import CLASSES, TestVideos, frame_scores, random_segments

from gpu_check.hardware import Bench
from wtal.inference.localize import detect
from wtal.ops import group_proposals, soft_nms
from wtal.settings.config import LocalizeConfig

LEVELS = tuple(np.linspace(0.1, 0.9, 10, dtype=np.float32).tolist())
CONFIG = LocalizeConfig(theta_cls=-1.0, theta_loc=LEVELS, max_detections=200)


def measure(bench: Bench) -> list[str]:
    """Each on the GPU and on the CPU; an op must give the same bits on both."""
    faults = []
    for what, call in calls(bench).items():
        on_device, expected = call(bench.device), call("cpu")
        same = all(torch.equal(a.cpu(), b) for a, b in zip(on_device, expected, strict=True))
        # On the way from scores to detections torch's own operations may round in another way.
        if not same and what.startswith(("soft_nms", "group_proposals")):
            faults.append(f"{what}: other bits than on the CPU")
        for device in dict.fromkeys((bench.device, "cpu")):
            clock = Bench(bench.stage, bench.folder, dry=bench.dry or device == "cpu")
            timing = clock.seconds(lambda call=call, device=device: call(device))
            bench.found(what=what, device=device, rows=len(expected[0]), same_bits=same, **timing)
    return faults


Call = Callable[[str], tuple[torch.Tensor, ...]]


def calls(bench: Bench) -> dict[str, Call]:
    """A function of the device each; what it reads is there already."""
    found: dict[str, Call] = {}
    for count in (200,) if bench.dry else (2_000, 10_000, 30_000):
        found[f"soft_nms, one group of {count}"] = suppression([count])
    sizes = [20] * 30 if bench.dry else np.random.default_rng(0).integers(20, 250, 212 * CLASSES).tolist()
    found[f"soft_nms, {len(sizes)} groups, {sum(sizes)} segments"] = suppression(sizes)
    total = 200 if bench.dry else 2304
    scores = torch.from_numpy(frame_scores(total, CLASSES, 25, np.random.default_rng(0)))[None]
    batch = scores if bench.dry else scores.repeat(16, 1, 1)
    found[f"group_proposals, {len(batch)} x {total} x {CLASSES}, 10 thresholds"] = grouping(batch)
    data = TestVideos(25 / 16, noisy=False)
    batches = data.batches[:1] if bench.dry else data.batches
    videos = sum(len(lengths) for _, _, lengths in batches)
    found[f"scores to detections, {videos} videos of THUMOS14's lengths"] = detection(batches)
    return found


def suppression(sizes: list[int]) -> Call:
    """soft_nms on groups of these sizes."""
    groups = [random_segments(size, seed) for seed, size in enumerate(sizes)]
    segments, scores = (torch.cat(parts) for parts in zip(*groups, strict=True))
    problem = (segments, scores, torch.tensor([0, *np.cumsum(sizes).tolist()]))
    on = {device: tuple(x.to(device) for x in problem) for device in devices()}
    return lambda device: soft_nms(*on[device])


def grouping(scores: torch.Tensor) -> Call:
    """group_proposals at ten thresholds."""
    on = {device: (scores.to(device), torch.tensor(LEVELS, device=device)) for device in devices()}
    return lambda device: group_proposals(*on[device])


def detection(batches: list[tuple[torch.Tensor, ...]]) -> Call:
    """All batches through detect, one after the other."""
    on = {device: [tuple(x.to(device) for x in batch) for batch in batches] for device in devices()}

    def call(device: str) -> tuple[torch.Tensor, ...]:
        parts = [detect(scores, of_videos, lengths, CONFIG) for scores, of_videos, lengths in on[device]]
        return torch.cat([part.segment for part in parts]), torch.cat([part.score for part in parts])

    return call


def devices() -> list[str]:
    """The CPU, and the GPU where there is one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
