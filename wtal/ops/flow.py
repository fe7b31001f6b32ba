"""TV-L1 optical flow between pairs of images."""

from __future__ import annotations

import torch
from torch import Tensor

from wtal.ops import _library  # noqa: F401
from wtal.ops._checks import check_device, check_shape, no_gradient


def tvl1_flow(
    first: Tensor,
    second: Tensor,
    *,
    tau: float = 0.25,
    lam: float = 0.15,
    theta: float = 0.3,
    scales: int = 5,
    warps: int = 5,
    epsilon: float = 0.01,
    inner: int = 30,
    outer: int = 10,
    scale_step: float = 0.8,
    median: int = 5,
) -> Tensor:
    """Motion from each first image to its second: the algorithm and defaults of OpenCV's DualTVL1OpticalFlow.

    On the CPU each thread processes whole pairs or, if there are fewer pairs than threads, bands of rows. The number
    of threads does not change the result. On CUDA one block of threads processes a pair; this was never run on a GPU.
    Source: Zach, Pock, Bischof, "A duality based approach for realtime TV-L1 optical flow", 2007.

    Args:
        first: uint8 ``[N, H, W]``.
        second: the same shape.
        tau: step of the dual variable.
        lam: weight of the brightness term: smaller is smoother.
        theta: strength of the coupling between the two parts of the split problem.
        scales: maximum number of pyramid levels; only the first level may have a side below 16 pixels.
        warps: number of times that the second image is warped on each level.
        epsilon: iterations end when the flow's mean squared change is at most ``epsilon ** 2``; 0: when it is zero.
        inner: maximum number of iterations between two median filters.
        outer: maximum number of median filters per warp.
        scale_step: size of a level relative to the next finer level.
        median: side of the median filter, 3 or 5; 1: no filter.

    Returns:
        float32 ``[N, H, W, 2]``, x and y in pixels.

    Raises:
        ValueError: an argument has a wrong shape, dtype or device.
        RuntimeError: a parameter is out of its range.
    """
    check_shape("first", first, "[N, H, W]", (None, None, None), torch.uint8)
    check_shape("second", second, "[N, H, W]", tuple(first.shape), torch.uint8)
    check_device("second", second, "first", first)
    flow: Tensor = torch.ops.wtal.tvl1_flow(
        first, second, tau, lam, theta, scales, warps, epsilon, inner, outer, scale_step, median
    )
    return flow


@torch.library.register_fake("wtal::tvl1_flow")
def _(first: Tensor, second: Tensor, *parameters: float) -> Tensor:
    return first.new_empty((*first.shape, 2), dtype=torch.float32)


no_gradient("tvl1_flow")
