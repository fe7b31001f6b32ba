"""Pairs a second of tvl1_flow at the size of extraction's frames, and its difference from the CPU's flow."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from gpu_check.hardware import Bench
from wtal.ops import tvl1_flow

CLOSE = 0.05
"""Pixels: the allowed mean distance between the flows, which is that of the CPU's from OpenCV's."""


def measure(bench: Bench) -> list[str]:
    """One finding for each number of pairs in flight; a flow that is not the CPU's is a fault."""
    height, width, batches = (40, 56, (1, 2)) if bench.dry else (256, 341, (1, 32, 128, 512))
    images = pictures(height, width)
    expected = tvl1_flow(*images)
    faults = []
    for count in batches:
        repeats = -(-count // images.shape[1])
        first, second = images.repeat(1, repeats, 1, 1)[:, :count].to(bench.device).contiguous()
        found = tvl1_flow(first, second)[: len(expected)].cpu()
        apart = float((found - expected[: len(found)]).norm(dim=-1).mean())
        if not apart <= CLOSE:
            faults.append(f"tvl1_flow, {count} pairs: {apart:.3g} pixels from the CPU's flow on average")
        timing = bench.seconds(lambda first=first, second=second: tvl1_flow(first, second), budget=1.5)
        bench.found(what=f"{width} x {height}", pairs=count, device=bench.device, apart=apart, **timing)
    return faults


def pictures(height: int, width: int) -> Tensor:
    """Four smooth pictures and each of them moved by 1 to 4 pixels: uint8 ``[2, 4, H, W]``."""
    torch.manual_seed(0)
    noise = torch.randn(4, 1, height + 24, width + 24)
    smooth = avg_pool2d(avg_pool2d(noise, 9, 1, 4), 9, 1, 4)[:, 0]
    low, high = smooth.amin((1, 2), True), smooth.amax((1, 2), True)
    pixels = ((smooth - low) / (high - low) * 255).to(torch.uint8)
    moved = [picture[12 + n : 12 + n + height, 12 - n : 12 - n + width] for n, picture in enumerate(pixels, 1)]
    return torch.stack([pixels[:, 12 : 12 + height, 12 : 12 + width], torch.stack(moved)])
