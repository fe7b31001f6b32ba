"""What tvl1_flow is meant to compute, in plain NumPy: Zach, Pock, Bischof 2007, discretised as OpenCV's DualTVL1 does.

Whole images at a time, in float64 unless another type is asked for. Nothing here is shared with the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

SMALLEST_SIDE = 16
TINY = float(np.finfo(np.float32).eps)
DEFAULTS: dict[str, Any] = {
    "tau": 0.25, "lam": 0.15, "theta": 0.3, "scales": 5, "warps": 5, "epsilon": 0.01,
    "inner": 30, "outer": 10, "scale_step": 0.8, "median": 5,
}  # fmt: skip


def resize(image: np.ndarray, size: tuple[int, int], step: tuple[float, float]) -> np.ndarray:
    """Bilinear: pixel i of the target lies at (i + 0.5) * step - 0.5 of the source, kept inside."""
    for axis in (0, 1):
        # OpenCV keeps the coordinate in float32.
        at = ((np.arange(size[axis]) + 0.5) * step[axis] - 0.5).astype(np.float32).astype(np.float64)
        at = at.clip(0, image.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        weight = (at - low).astype(image.dtype).reshape((-1, 1) if axis == 0 else (1, -1))
        image = image.take(low, axis) * (1 - weight) + image.take(high, axis) * weight
    return image


def pyramid(image: np.ndarray, scales: int, scale_step: float) -> list[np.ndarray]:
    levels = [image]
    while len(levels) < scales:
        height, width = (round(side * scale_step) for side in levels[-1].shape)
        if min(height, width) < SMALLEST_SIDE:
            break
        levels.append(resize(levels[-1], (height, width), (1 / scale_step, 1 / scale_step)))
    return levels


def cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -0.75."""
    a, d = -0.75, abs(distance)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def warp(image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The image at (x + u, y + v), rounded to 1/32 pixel; zero outside."""
    height, width = image.shape
    fine_x = np.rint((np.arange(width) + u.astype(np.float32)).astype(np.float32) * 32).clip(-4096, 32 * width + 4096)
    fine_y = np.rint((np.arange(height)[:, None] + v.astype(np.float32)).astype(np.float32) * 32)
    fine_y = fine_y.clip(-4096, 32 * height + 4096)
    x, y = np.floor(fine_x / 32).astype(int), np.floor(fine_y / 32).astype(int)
    moved = np.zeros_like(image)
    for j in range(-1, 3):
        for i in range(-1, 3):
            weight = cubic(fine_x / 32 - (x + i)) * cubic(fine_y / 32 - (y + j))
            inside = (x + i >= 0) & (x + i < width) & (y + j >= 0) & (y + j < height)
            value = image[(y + j).clip(0, height - 1), (x + i).clip(0, width - 1)]
            moved += (np.where(inside, value, 0) * weight).astype(image.dtype)
    return moved


def central_differences(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    padded = np.pad(image, 1, mode="edge")
    return (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2, (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2


def forward_differences(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.diff(image, axis=1, append=image[:, -1:]), np.diff(image, axis=0, append=image[-1:])


def divergence(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    return np.diff(across, axis=1, prepend=0) + np.diff(down, axis=0, prepend=0)


def median_filter(image: np.ndarray, side: int) -> np.ndarray:
    padded = np.pad(image, side // 2, mode="edge")
    return np.median(sliding_window_view(padded, (side, side)), axis=(2, 3)).astype(image.dtype)


def threshold_step(rho: np.ndarray, gx: np.ndarray, gy: np.ndarray, limit: float) -> np.ndarray:
    """How far along the gradient the flow moves: the minimiser of lam |rho| + |v - u|^2 / (2 theta)."""
    square = gx * gx + gy * gy
    exact = np.where(square > TINY, -rho / np.where(square > TINY, square, 1), 0)
    return np.select([rho < -limit * square, rho > limit * square], [limit, -limit], exact).astype(rho.dtype)


def level(
    u: np.ndarray,
    v: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    s: dict[str, Any],
    log: list[list[float]],
    moved_by: Sequence[np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The flow of one level of the pyramid; see :func:`flow_of_pair`."""
    enough = s["epsilon"] ** 2 * first.size
    duals = [[np.zeros_like(u) for _ in range(2)] for _ in range(2)]
    gradient = central_differences(second)
    for number in range(s["warps"]):
        along = (u, v) if moved_by is None else np.moveaxis(moved_by[number], -1, 0)
        gx, gy = (warp(plane, *along) for plane in gradient)
        constant = warp(second, *along) - gx * u - gy * v - first
        change, changes = np.inf, list[float]()
        for _ in range(s["outer"]):
            if change <= enough:
                break
            if s["median"] > 1:
                u, v = median_filter(u, s["median"]), median_filter(v, s["median"])
            for _ in range(s["inner"]):
                if change <= enough:
                    break
                step = threshold_step(constant + gx * u + gy * v, gx, gy, s["lam"] * s["theta"])
                moved_u = u + step * gx + s["theta"] * divergence(*duals[0])
                moved_v = v + step * gy + s["theta"] * divergence(*duals[1])
                change = float(((moved_u - u) ** 2 + (moved_v - v) ** 2).sum())
                u, v = moved_u, moved_v
                for dual, plane in zip(duals, (u, v), strict=True):
                    rate, (dx, dy) = s["tau"] / s["theta"], forward_differences(plane)
                    length = 1 + rate * np.sqrt(dx * dx + dy * dy)
                    dual[:] = (dual[0] + rate * dx) / length, (dual[1] + rate * dy) / length
                changes.append(change)
        log.append(changes)
    return u, v


def flow_of_pair(
    first: np.ndarray,
    second: np.ndarray,
    dtype: Any = np.float64,
    moved_by: Sequence[np.ndarray] | None = None,
    **settings: Any,
) -> tuple[np.ndarray, list[list[float]]]:
    """uint8 ``[H, W]`` twice -> the flow ``[H, W, 2]`` and the change of each inner iteration, a list for each warp.

    Coarsest level first. ``moved_by``, with one level only, is the flow along which each warp moves the second image;
    by default it is the flow found so far.
    """
    s, log = DEFAULTS | settings, list[list[float]]()
    firsts, seconds = (pyramid(image.astype(dtype), s["scales"], s["scale_step"]) for image in (first, second))
    u, v = (np.zeros_like(firsts[-1]) for _ in range(2))
    for a, b in zip(firsts[::-1], seconds[::-1], strict=True):
        if a.shape != u.shape:
            step = (u.shape[0] / a.shape[0], u.shape[1] / a.shape[1])
            u, v = (resize(plane, a.shape, step) * dtype(1 / s["scale_step"]) for plane in (u, v))
        u, v = level(u, v, a, b, s, log, moved_by)
    return np.stack([u, v], -1), log
