"""How many tiles a selection of soft_nms visits in a large group on CUDA, and how many instructions that makes.

    python benchmarks/count_tiles.py

The order of rows, the tiles and their reach are those of csrc/cuda/soft_nms_order.cuh and soft_nms_tiles.cuh, in NumPy;
selections are those of the CPU op, 200 of them spread over the run. A row that falls below min_score counts as one that
is left, so the kernel visits a few tiles less. No GPU takes part. Instructions were read from the machine code of sm_86
(float32, Gaussian, nvcc 13.0): the shortest way through the parts that are named. "Before" are the forms that kept such
groups in registers or went through all rows in memory.

A second table says what the octaves save: tiles that a segment overlaps, with rows by octave and start or by start
alone, of the segments of the first table and of others that are 0.5 s to the whole video long.
"""

from __future__ import annotations

import numpy as np
import torch
from workloads import random_segments

from wtal.ops import soft_nms

WARP, WARPS, THREADS, TILES, OCTAVES, CELLS = 32, 16, 512, 1024, 8, 512
SEARCH, ROUND, TILE, LOAD, OVERLAP = 56, 34, 65, 32, 69  # LOAD: each further 32 rows of a tile
BEFORE = {
    "memory": (60, 33, 0, 69),
    "registers": (54, 24, 12, 66),
}  # a warp; 32 rows; 32 that are not there; an overlap
REGISTER_ROWS = 19 * THREADS


def order_of(segments: np.ndarray) -> np.ndarray:
    """Row numbers by octave of length and cell of start; within a cell by chance, as on a GPU."""
    start, end = segments.T
    exponent = np.frexp((end - start) + np.float32(1e-6))[1]
    octave = np.minimum(exponent.max() - exponent, OCTAVES - 1)
    cell = np.minimum((start - start.min()) * np.float32(CELLS / np.ptp(start)), CELLS - 1).astype(int)
    return np.lexsort((np.random.default_rng(0).random(len(segments)), octave * CELLS + cell))


def loads_with(rows: np.ndarray) -> int:
    """Of 32 rows each, those in which the mask has any."""
    return int(np.pad(rows, (0, -len(rows) % WARP)).reshape(-1, WARP).any(1).sum())


def count(what: str, segments: np.ndarray, scores: np.ndarray) -> str:
    """A line of the table."""
    size = len(scores)
    keep = soft_nms(torch.from_numpy(segments), torch.from_numpy(scores), torch.tensor([0, size]))[0].numpy()
    loads = size // (TILES * WARP) + 1
    order = order_of(segments)
    tile = np.empty(size, int)
    tile[order] = np.arange(size) // (WARP * loads)
    tiles = tile.max() + 1
    low, high, taken_at = np.full(tiles, np.inf), np.full(tiles, -np.inf), np.full(size, len(keep))
    np.minimum.at(low, tile, segments[:, 0])
    np.maximum.at(high, tile, segments[:, 1])
    taken_at[keep] = np.arange(len(keep))
    found = []
    for turn in np.linspace(0, len(keep) - 1, 200).astype(int):
        start, end = segments[keep[turn]]
        live = taken_at > turn
        overlapping = live & (segments[:, 0] < end) & (segments[:, 1] > start)
        visited = (np.bincount(tile[live], minlength=tiles) > 0) & (low < end) & (high > start)
        hit = np.bincount(tile[overlapping], minlength=tiles) > 0
        found.append([visited.sum(), hit.sum(), loads_with(overlapping[order]), loads_with(overlapping)])
    visits, hits, hit_loads, hits_before = np.mean(found, 0)
    now = WARPS * (SEARCH + ROUND * -(-tiles // THREADS)) + visits * (TILE + LOAD * (loads - 1)) + hit_loads * OVERLAP
    form = "registers" if size <= REGISTER_ROWS else "memory"
    search, row, nothing, overlap = BEFORE[form]
    rows = -(-size // WARP)
    before = WARPS * search + rows * row + max(0, REGISTER_ROWS // WARP - rows) * nothing + hits_before * overlap
    old_bytes = 12 * size if form == "memory" else 0
    return (
        f"| {what} | {tiles} of {WARP * loads} rows, {visits:.1f} | {hits:.1f} | {before:,.0f} ({form}) | {now:,.0f} "
        f"| {old_bytes:,} | {visits * loads * WARP * 16:,.0f} |"
    )


def overlapped(order: np.ndarray, segments: np.ndarray) -> float:
    """Tiles of rows in this order that a segment overlaps: the mean over 200 of the segments."""
    size = len(order)
    starts = np.arange(0, size, WARP * (size // (TILES * WARP) + 1))
    low, high = np.minimum.reduceat(segments[order, 0], starts), np.maximum.reduceat(segments[order, 1], starts)
    start, end = segments[np.random.default_rng(1).choice(size, 200, replace=False)].T[:, :, None]
    return float(((low < end) & (high > start)).sum(1).mean())


def what_octaves_save(size: int) -> str:
    """A line of the second table."""
    short = random_segments(size)[0].numpy()
    rng, seconds = np.random.default_rng(0), size / 10
    length = 0.5 * (2 * seconds) ** rng.random(size)
    start = rng.random(size) * (seconds - length)
    numbers = [
        f"{overlapped(order, segments):.1f}"
        for segments in (short, np.stack([start, start + length], 1).astype(np.float32))
        for order in (order_of(segments), np.argsort(segments[:, 0]))
    ]
    return f"| {size:,} | {' | '.join(numbers)} |"


def main() -> None:
    """Print the tables of docs/postprocessing.md."""
    for size in (2_049, 4_096, 9_728, 10_000, 30_000, 100_000):
        segments, scores = (tensor.numpy() for tensor in random_segments(size))
        print(count(f"{size:,}", segments, scores), flush=True)
    segments, scores = (tensor.numpy() for tensor in random_segments(5_000))
    segments -= (segments.mean(1, keepdims=True) * 0.96).astype(np.float32)  # 500 s become 20
    print(count("5,000 in 20 s", segments, scores))
    for size in (4_096, 10_000, 30_000, 100_000):
        print(what_octaves_save(size))


if __name__ == "__main__":
    main()
