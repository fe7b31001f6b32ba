"""soft_nms against the sequential definition in NumPy, bit for bit, with an exp of its own."""

from __future__ import annotations

import math
import re
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from host_cuda.backends import CUDA_DEVICES, DEVICES, at_most
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wtal.ops import soft_nms

METHODS = ["hard", "linear", "gaussian"]

# ---- the definition: every operation rounds once, to the dtype of its operands --------------------------------------
LN2_HIGH = {np.float32: "0x1.62ep-1", np.float64: "0x1.62e42fefa38p-1"}
DEGREE = {np.float32: 7, np.float64: 13}
LOWEST = {np.float32: -104.0, np.float64: -746.0}


def specified_exp(x: np.ndarray) -> np.ndarray:
    """exp of x <= 0: x = k ln 2 + r, a Taylor polynomial of r in Horner's form, times 2^k."""
    dtype = x.dtype.type
    with localcontext() as context:
        context.prec = 50
        high = Decimal(float.fromhex(LN2_HIGH[dtype]))
        low = dtype(float(Decimal(2).ln() - high))
        log2e = dtype(float(1 / Decimal(2).ln()))
    clipped = np.maximum(x, dtype(LOWEST[dtype]))
    k = np.trunc(clipped * log2e - dtype(0.5))
    r = (clipped - k * dtype(float(high))) - k * low
    p = np.full_like(x, dtype(1) / dtype(math.factorial(DEGREE[dtype])))
    for i in range(DEGREE[dtype] - 1, -1, -1):
        p = p * r + dtype(1) / dtype(math.factorial(i))
    assert p.dtype == x.dtype
    return np.where(x < dtype(LOWEST[dtype]), dtype(0), np.ldexp(p, k.astype(np.int32)))


def overlaps(start: np.ndarray, end: np.ndarray, with_index: int) -> np.ndarray:
    """tIoU of every segment with one of them."""
    dtype = start.dtype.type
    length = (end - start) + dtype(1e-6)
    shared = np.minimum(end, end[with_index]) - np.maximum(start, start[with_index])
    shared = np.maximum(shared, dtype(0))
    return shared / ((length + length[with_index]) - shared)


def decay_of(overlap: np.ndarray, method: str, sigma: Any, iou_threshold: Any) -> np.ndarray:
    one = overlap.dtype.type(1)
    if method == "gaussian":
        return specified_exp(-(overlap * overlap) / sigma)
    return np.where(overlap >= iou_threshold, one - overlap, one)


def definition(
    segments: np.ndarray,
    scores: np.ndarray,
    offsets: np.ndarray,
    sigma: float = 0.5,
    iou_threshold: float = 0.5,
    min_score: float = 0.001,
    method: str = "gaussian",
    max_per_group: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dtype = scores.dtype.type
    keep: list[int] = []
    kept_scores: list[Any] = []
    kept_offsets = [0]
    for first, last in pairwise(offsets):
        start, end, score = segments[first:last, 0], segments[first:last, 1], scores[first:last].copy()
        running = score >= dtype(min_score)
        taken = 0
        while running.any() and taken != max_per_group:
            candidates = np.flatnonzero(running)
            best = candidates[np.argmax(score[candidates])]  # the first of equal ones
            keep.append(int(first + best))
            kept_scores.append(score[best])
            taken += 1
            running[best] = False
            overlap = overlaps(start, end, best)
            score = np.where(
                running, score * decay_of(overlap, method, dtype(sigma), dtype(iou_threshold)), score
            ).astype(dtype)
            running &= score >= dtype(min_score)
            if method == "hard":
                running &= overlap < dtype(iou_threshold)
                score = np.where(running, scores[first:last], score)
        kept_offsets.append(len(keep))
    return np.array(keep, np.int64), np.array(kept_scores, dtype), np.array(kept_offsets, np.int64)


def run(device: str, segments: np.ndarray, scores: np.ndarray, offsets: np.ndarray, **options: Any) -> list[Tensor]:
    arrays = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in (segments, scores, offsets)]
    return list(soft_nms(*arrays, **options))


def assert_same_bits(found: list[Tensor], expected: tuple[np.ndarray, ...]) -> None:
    for tensor, array in zip(found, expected, strict=True):
        as_array = tensor.cpu().numpy()
        assert as_array.dtype == array.dtype
        assert as_array.shape == array.shape
        assert as_array.tobytes() == array.tobytes()


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    sizes = draw(st.lists(st.sampled_from([0, 1, 2, 3, 7, 20, 33, 130, 300]), max_size=5))
    total = int(np.sum(sizes, dtype=np.int64))
    kind = draw(st.sampled_from(["dense", "sparse", "grid", "identical", "points", "far"]))
    centre, length = rng.random(total) * 30, np.exp2(rng.random(total) * 6 - 2)
    if kind == "sparse":
        centre *= 100
    elif kind == "grid":
        centre, length = np.floor(centre), np.floor(length / 2) * 2
    elif kind == "identical":
        centre, length = np.full(total, 5.0), np.full(total, 3.0)
    elif kind == "points":
        length = length * (rng.random(total) < 0.5)
    elif kind == "far":
        centre += 1e6
    segments = np.stack([centre - length / 2, centre + length / 2], 1).astype(dtype)
    scores = rng.random(total)
    values = draw(st.sampled_from(["any", "tied", "few", "zero", "signed zeros", "signed", "large"]))
    if values == "tied":
        scores = np.full(total, 0.75)
    elif values == "few":
        scores = np.floor(scores * 4) / 4
    elif values == "zero":
        scores = np.zeros(total)
    elif values == "signed zeros":
        scores = np.where(scores < 0.5, -0.0, 0.0)
    elif values == "signed":
        scores = scores - 0.5
    elif values == "large":
        scores = scores * 1e30
    return segments, scores.astype(dtype), np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)


@pytest.mark.parametrize("device", DEVICES)
@given(
    problem=problems(),
    method=st.sampled_from(METHODS),
    sigma=st.sampled_from([0.5, 1e-3, 0.07, 100.0, 1e-40, 2.0**-126, 2.0**20]),
    iou_threshold=st.sampled_from([0.5, 0.0, 0.1, 1.0, 1.5]),
    min_score=st.sampled_from([0.001, 0.0, 0.3, 0.75]),
    max_per_group=st.sampled_from([None, 0, 1, 5, 1000]),
)
def test_equals_the_sequential_definition_bit_for_bit(
    device: str, problem: tuple[np.ndarray, np.ndarray, np.ndarray], **options: Any
) -> None:
    with np.errstate(over="ignore"):  # overlap^2 / 1e-40
        expected = definition(*problem, **options)
    found = run(device, *problem, **options)
    assert_same_bits(found, expected)
    for first, last in pairwise(expected[2]):
        assert np.all(np.diff(expected[1][first:last]) <= 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
def test_many_segments_and_groups(device: str, method: str) -> None:
    """More rows than a block has threads, more groups than a chunk of the numbering."""
    rng = np.random.default_rng(0)
    sizes = np.concatenate([[700, 0, 257], rng.integers(0, 3, 1500)])
    total = int(sizes.sum())
    start = rng.random(total) * 50
    segments = np.stack([start, start + np.exp2(rng.random(total) * 5)], 1).astype(np.float32)
    scores = (rng.integers(0, 1000, total) / 1000).astype(np.float32)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    options = {"method": method, "max_per_group": 300}
    assert_same_bits(
        run(device, segments, scores, offsets, **options), definition(segments, scores, offsets, **options)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_groups_that_the_cpu_sorts_by_length(method: str, dtype: type) -> None:
    """Above 2048 rows, in octaves; lengths over more octaves than there are kept apart, and of one alone."""
    rng = np.random.default_rng(0)
    sizes = [2049, 3000, 2500]
    total = sum(sizes)
    length = np.exp2(rng.random(total) * 14 - 4)
    length[5049:] = 1.5
    start = rng.random(total) * 700
    segments = np.stack([start, start + length], 1).astype(dtype)
    scores, offsets = rng.random(total).astype(dtype), np.concatenate([[0], np.cumsum(sizes)])
    options: dict[str, Any] = {"method": method, "max_per_group": 500}
    assert_same_bits(run("cpu", segments, scores, offsets, **options), definition(segments, scores, offsets, **options))


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_groups_of_a_warp_of_a_block_and_in_tiles(dtype: type, method: str, device: str) -> None:
    """A warp takes up to 256 rows, a block has up to 2048 in its registers, more lie in tiles; many equal scores."""
    rng = np.random.default_rng(0)
    sizes = [256, 257, 2048, 2049, 300, 2500]  # of two blocks each has two groups of a kind
    total = sum(sizes)
    start = rng.random(total) * 200
    segments = np.stack([start, start + np.exp2(rng.random(total) * 5)], 1).astype(dtype)
    scores, offsets = (rng.integers(0, 100, total) / 100).astype(dtype), np.concatenate([[0], np.cumsum(sizes)])
    options: dict[str, Any] = {"method": method, "max_per_group": 13}  # odd: a block then ends at its other place
    assert_same_bits(
        run(device, segments, scores, offsets, **options), definition(segments, scores, offsets, **options)
    )


def segments_of_a_large_group(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """``[count, 2]``; what the order of a large group's rows and the reach of a tile could get wrong."""
    start, length = rng.random(count) * 300, np.exp2(rng.random(count) * 6 - 1)
    if kind == "many octaves":
        length = np.exp2(rng.random(count) * 24 - 18)
    elif kind == "points":  # some at the same place, some at the ends of others
        start, length = np.floor(start), np.floor(length / 4) * 4
        length[rng.random(count) < 0.7] = 0
    elif kind == "only points":
        start, length = np.floor(start), np.zeros(count)
    elif kind == "side by side":
        start, length = np.floor(start), np.ones(count)
    elif kind == "identical":
        start, length = np.full(count, -7.0), np.full(count, 3.0)
    elif kind == "at the ends of float32":  # starts farther apart than a float32 can say
        start, length = np.where(rng.random(count) < 0.5, -3e38, 3e38), np.full(count, 1e37)
        start[rng.random(count) < 0.2] = 0
    return np.stack([start, start + length], 1)


LARGE_KINDS = [
    *("plain", "many octaves", "points", "only points", "side by side", "identical", "at the ends of float32"),
]


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize("kind", LARGE_KINDS)
@at_most(4)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([2049, 2079, 2080, 2081, 3000]),  # 32 rows lie in a tile
    dtype=st.sampled_from([np.float32, np.float64]),
    values=st.sampled_from(["any", "few", "tied", "signed zeros"]),
    method=st.sampled_from(METHODS),
    iou_threshold=st.sampled_from([0.5, 0.0, 0.2]),
    min_score=st.sampled_from([0.0, 0.001, 0.6, 0.99, 2.0]),  # which also leaves few rows, or none
    max_per_group=st.sampled_from([0, 1, 70, 400]),
)
def test_a_large_group(device: str, kind: str, seed: int, size: int, dtype: type, values: str, **options: Any) -> None:
    rng = np.random.default_rng(seed)
    segments, scores = segments_of_a_large_group(kind, size, rng).astype(dtype), rng.random(size)
    if values == "few":
        scores = np.floor(scores * 4) / 4
    elif values == "tied":
        scores = np.full(size, 0.75)
    elif values == "signed zeros":
        scores = np.where(scores < 0.3, -0.0, np.where(scores < 0.99, 0.0, scores))
    problem = (segments, scores.astype(dtype), np.array([0, size]))
    with np.errstate(over="ignore"):  # the gap between segments at both ends of float32
        expected = definition(*problem, **options)
    assert_same_bits(run(device, *problem, **options), expected)


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize(
    ("method", "iou_threshold"), [("hard", 0.5), ("hard", 0.0), ("linear", 0.5), ("gaussian", 0.5)]
)
def test_a_large_group_to_its_last_row(device: str, method: str, iou_threshold: float) -> None:
    """Tiles in which no row is left, beside others; at a threshold of 0 the first drops even what it does not touch."""
    rng = np.random.default_rng(4)
    start = rng.random(2200) * 900
    segments = np.stack([start, start + np.exp2(rng.random(2200) * 6)], 1).astype(np.float32)
    problem = (segments, rng.random(2200).astype(np.float32), np.array([0, 2200]))
    options: dict[str, Any] = {"method": method, "iou_threshold": iou_threshold, "sigma": 0.1, "min_score": 0.1}
    options["max_per_group"] = len(segments)  # so that a fault that takes a row for ever ends
    assert_same_bits(run(device, *problem, **options), definition(*problem, **options))


@pytest.mark.parametrize("device", CUDA_DEVICES)
@pytest.mark.parametrize(
    ("dtype", "size"), [(np.float32, 16_385), (np.float32, 32_767), (np.float64, 32_769), (np.float32, 66_000)]
)
def test_more_tiles_than_threads_and_larger_tiles(device: str, dtype: type, size: int) -> None:
    """A thread has two tiles from 16385 rows on, a tile 64 rows from 32768 on; half the scores are equal."""
    rng = np.random.default_rng(5)
    start = rng.random(size + 3) * size / 20
    segments = np.stack([start, start + np.exp2(rng.random(size + 3) * 6)], 1).astype(dtype)
    scores = np.where(rng.random(size + 3) < 0.5, 0.9, rng.random(size + 3)).astype(dtype)
    segments[-7], scores[-7] = (size, size + 0.01), 1  # the last in the kernel's order, alone in its tile, is the first
    problem = (segments, scores, np.array([0, 3, size + 3]))
    options: dict[str, Any] = {"max_per_group": 40, "min_score": 0}  # none is dropped: the size is that of the order
    assert_same_bits(run(device, *problem, **options), definition(*problem, **options))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [2, 7, 70, 1100])
def test_zeros_of_either_sign_are_equal(device: str, size: int, dtype: type) -> None:
    """The lower row is the first, whatever the signs: -0 and 0 in turn, beginning with either."""
    start = np.arange(size) * 2.0
    segments = np.stack([start, start + 1], 1).astype(dtype)
    for first in (0, 1):
        scores = np.where(np.arange(size) % 2 == first, -0.0, 0.0).astype(dtype)
        problem = (segments, scores, np.array([0, size]))
        found = run(device, *problem, min_score=0)
        assert found[0].tolist() == list(range(size))
        assert_same_bits(found, definition(*problem, min_score=0))


@pytest.mark.parametrize("device", DEVICES)
def test_more_groups_than_are_numbered_at_a_time(device: str) -> None:
    """A block numbers 1024 groups, then the next."""
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 3, 2500))])
    start = rng.random(offsets[-1])
    segments, scores = np.stack([start, start + 0.5], 1).astype(np.float32), rng.random(offsets[-1]).astype(np.float32)
    options = {"method": "hard", "iou_threshold": 0.4}
    assert_same_bits(
        run(device, segments, scores, offsets, **options), definition(segments, scores, offsets, **options)
    )


@pytest.mark.parametrize("device", DEVICES)
def test_a_small_example(device: str) -> None:
    segments = np.array([[0, 4], [0, 2], [10, 12], [0, 4], [100, 101]], np.float64)
    scores = np.array([0.5, 0.9, 0.4, 0.5, 0.0005])
    offsets = np.array([0, 3, 3, 5])
    keep, score, kept_offsets = run(device, segments, scores, offsets, sigma=0.5)
    assert keep.tolist() == [1, 2, 0, 3]
    assert score.tolist() == pytest.approx([0.9, 0.4, 0.5 * math.exp(-(0.5**2) / 0.5), 0.5], rel=1e-5)
    assert kept_offsets.tolist() == [0, 3, 3, 4]
    keep, score, _ = run(device, segments, scores, offsets, method="linear", iou_threshold=0.4)
    assert keep.tolist() == [1, 2, 0, 3]
    assert score.tolist() == pytest.approx([0.9, 0.4, 0.25, 0.5], rel=1e-5)
    keep, score, _ = run(device, segments, scores, offsets, method="hard", iou_threshold=0.4)
    assert keep.tolist() == [1, 2, 3]
    assert score.tolist() == [0.9, 0.4, 0.5]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", ["hard", "linear"])
def test_the_threshold_itself_counts_as_overlap(device: str, method: str) -> None:
    segments = np.array([[0, 2.0**20], [0, 2.0**19]], np.float32)  # the 1e-6 is lost: tIoU is exactly 0.5
    scores = np.array([1.0, 0.5], np.float32)
    keep, score, _ = run(device, segments, scores, np.array([0, 2]), method=method, iou_threshold=0.5)
    assert (keep.tolist(), score.tolist()) == (([0], [1.0]) if method == "hard" else ([0, 1], [1.0, 0.25]))


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_to_do(device: str) -> None:
    empty, none = np.zeros((0, 2), np.float32), np.zeros(0, np.float32)
    for offsets in ([0], [0, 0], [0, 0, 0]):
        keep, score, kept_offsets = run(device, empty, none, np.array(offsets))
        assert (keep.tolist(), score.tolist(), kept_offsets.tolist()) == ([], [], offsets)
        assert (keep.dtype, score.dtype, kept_offsets.dtype) == (torch.int64, torch.float32, torch.int64)
        assert {tensor.device.type for tensor in (keep, score, kept_offsets)} == {device}


@pytest.mark.parametrize("device", DEVICES)
def test_any_strides(device: str) -> None:
    rng = np.random.default_rng(1)
    start, scores = rng.random(40) * 9, rng.random(40)
    segments, offsets = np.stack([start, start + 2], 1), np.array([0, 15, 40])
    wide = torch.from_numpy(np.stack([segments.T] * 2, 2)).to(device)  # [2, N, 2]
    twice = torch.from_numpy(np.stack([scores] * 2, 1)).to(device)  # [N, 2]
    thrice = torch.from_numpy(np.stack([offsets] * 3, 1)).to(device)  # [G + 1, 3]
    found = soft_nms(wide[..., 1].T, twice[:, 0], thrice[:, 2])
    assert_same_bits(list(found), definition(segments, scores, offsets))


def test_outputs_carry_no_gradient() -> None:
    segments = torch.tensor([[0.0, 1.0], [0.5, 2.0]], requires_grad=True)
    scores, offsets = torch.tensor([0.5, 0.6], requires_grad=True), torch.tensor([0, 2])
    assert not any(tensor.requires_grad for tensor in soft_nms(segments, scores, offsets))
    raw = torch.ops.wtal.soft_nms(segments, scores, offsets, 0.5, 0.5, 0.001, "linear", None)
    assert not any(tensor.requires_grad for tensor in raw)


# ---- its exp ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sigma", [1.0, 0.1, 0.0125])
def test_exp_is_within_about_one_unit_in_the_last_place(device: str, dtype: type, sigma: float) -> None:
    """Pairs with scores 1 and 1: the second is left with exp(-tIoU^2 / sigma) alone."""
    count = 1500
    ratio = np.random.default_rng(2).random(count)
    segments = np.zeros((2 * count, 2), dtype)
    segments[0::2, 1], segments[1::2, 1] = 1e6, 1e6 * ratio
    offsets = 2 * np.arange(count + 1)
    _, score, _ = run(device, segments, np.ones(2 * count, dtype), offsets, sigma=sigma, min_score=0.0)
    found = score.cpu().numpy().reshape(count, 2)[:, 1]
    overlap = np.array([overlaps(*segments[2 * i : 2 * i + 2].T, 0)[1] for i in range(count)])
    x = -(overlap * overlap) / dtype(sigma)
    assert found.tobytes() == specified_exp(x).tobytes()
    assert found.max() <= 1
    with localcontext() as context:
        context.prec = 30
        for value, argument in zip(found, x, strict=True):
            exact = Decimal(float(argument)).exp()
            unit = Decimal(float(np.spacing(dtype(exact))))
            assert abs(Decimal(float(value)) - exact) <= Decimal("1.25") * unit


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_definitions_own_exp_at_its_ends(dtype: type) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    arguments = np.array([-np.inf, 2 * LOWEST[dtype], LOWEST[dtype], -0.0, 0.0, -tiny, -1], dtype)
    values = specified_exp(arguments)
    assert values[:3].tolist() == [0, 0, 0]
    assert values[3:6].tolist() == [1, 1, 1]
    assert abs(values[6] - math.exp(-1)) <= np.spacing(values[6])
    subnormal = dtype(LOWEST[dtype] + 4)
    assert abs(float(specified_exp(np.array([subnormal]))[0]) - math.exp(subnormal)) <= tiny


# ---- errors -----------------------------------------------------------------------------------------------------
GOOD: dict[str, Any] = {
    "segments": torch.tensor([[0.0, 1.0], [2.0, 3.0], [2.0, 4.0]]),
    "scores": torch.tensor([0.5, 0.6, 0.7]),
    "offsets": torch.tensor([0, 1, 3]),
}
BAD = [
    ("scores", torch.zeros(3, 1), "scores has shape [3, 1], expected [N]"),
    ("scores", torch.zeros(3).bfloat16(), "scores has dtype torch.bfloat16, expected torch.float32 or torch.float64"),
    ("segments", torch.zeros(2, 2), "segments has shape [2, 2], expected [N, 2] = [3, 2]"),
    ("segments", torch.zeros(3, 3), "segments has shape [3, 3], expected [N, 2] = [3, 2]"),
    ("segments", torch.zeros(3, 2).long(), "segments has dtype torch.int64, expected torch.float32"),
    ("segments", torch.zeros(3, 2, device="meta"), "segments is on meta, scores on cpu: expected one device"),
    ("offsets", torch.zeros(2, 2).long(), "offsets has shape [2, 2], expected [G + 1]"),
    ("offsets", torch.zeros(2), "offsets has dtype torch.float32, expected torch.int64"),
    ("offsets", torch.zeros(0).long(), "offsets has shape [0], expected [G + 1]"),
    ("offsets", torch.zeros(2, device="meta").long(), "offsets is on meta, scores on cpu: expected one device"),
    ("sigma", 0.0, "sigma is 0.0, expected a number > 0"),
    ("sigma", 1e-50, "sigma is 1e-50, expected a number > 0 in torch.float32"),
    ("sigma", math.nan, "sigma is nan, expected a number > 0"),
    ("iou_threshold", -0.1, "iou_threshold is -0.1, expected a number >= 0"),
    ("min_score", -0.1, "min_score is -0.1, expected a number >= 0"),
    ("min_score", math.nan, "min_score is nan, expected a number >= 0"),
    ("method", "cubic", "method is 'cubic', expected 'hard', 'linear' or 'gaussian'"),
    ("max_per_group", -1, "max_per_group is -1, expected at least 0, or None"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_wrong_argument_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        soft_nms(**{**GOOD, name: value})


BAD_VALUES = [
    ("offsets", torch.tensor([1, 2, 3]), "offsets[0] is out of order"),
    ("offsets", torch.tensor([0, 2, 1, 3]), "offsets[2] is out of order"),
    ("offsets", torch.tensor([0, 4, 3]), "offsets[2] is out of order"),
    ("offsets", torch.tensor([0, -1, 3]), "offsets[1] is out of order"),
    ("offsets", torch.tensor([0, 2]), "offsets[1] is out of order, expected offsets that start at 0, never fall and"),
    ("offsets", torch.tensor([0, 2**62, 3]), "end at N = 3"),
    ("offsets", torch.tensor([0]), "offsets[0] is out of order"),
    ("scores", torch.tensor([0.5, math.nan, math.nan]), "scores[1] is not finite"),
    ("scores", torch.tensor([0.5, 0.5, -math.inf]), "scores[2] is not finite"),
    ("segments", torch.tensor([[0, 1], [3, 2], [0, 1.0]]), "segments[1] is no segment, expected start <= end"),
    ("segments", torch.tensor([[0, math.inf], [1, 2], [0, 1.0]]), "segments[0] is no segment"),
    ("segments", torch.tensor([[0, 1], [1, 2], [math.nan, 1.0]]), "segments[2] is no segment"),
    ("segments", torch.tensor([[0, 1], [1, 2], [-3e38, 3e38]]), "both and their difference finite"),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "value", "message"), BAD_VALUES)
def test_a_bad_value_is_located(device: str, name: str, value: Tensor, message: str) -> None:
    arguments = {key: tensor.to(device) for key, tensor in {**GOOD, name: value}.items()}
    with pytest.raises(RuntimeError, match=re.escape(message)):
        soft_nms(**arguments)


RAW_BAD = [
    ("scores", torch.zeros(3, 1), "scores has shape [3, 1], expected [N]"),
    ("scores", torch.zeros(3).long(), "scores has dtype Long, expected float32 or float64"),
    ("segments", torch.zeros(2, 2), "segments has shape [2, 2], expected [N, 2] to go with scores [3]"),
    ("segments", torch.zeros(3, 2).double(), "segments has dtype Double, expected the dtype of scores, Float"),
    ("offsets", torch.zeros(0).long(), "offsets has shape [0] and dtype Long, expected int64 [G + 1]"),
    ("offsets", torch.zeros(2), "offsets has shape [2] and dtype Float, expected int64 [G + 1]"),
    ("sigma", -1.0, "sigma is -1, expected a number > 0"),
    ("min_score", -1.0, "min_score is -1, expected a number >= 0"),
    ("iou_threshold", math.nan, "iou_threshold is nan, expected a number >= 0"),
    ("method", "cubic", "method is 'cubic', expected 'hard', 'linear' or 'gaussian'"),
    ("max_per_group", -1, "max_per_group is -1, expected at least 0, or None"),
]


@pytest.mark.parametrize(("name", "value", "message"), RAW_BAD)
def test_the_raw_op_checks_what_memory_accesses_rest_on(name: str, value: Any, message: str) -> None:
    options = {"sigma": 0.5, "iou_threshold": 0.5, "min_score": 0.0, "method": "hard", "max_per_group": None}
    with pytest.raises(RuntimeError, match=re.escape(f"soft_nms: {message}")):
        torch.ops.wtal.soft_nms(**{**GOOD, **options, name: value})


@pytest.mark.gpu
def test_cuda_rejects_mixed_devices() -> None:
    options = (0.5, 0.5, 0.001, "gaussian", None)
    segments, scores, offsets = (tensor.cuda() for tensor in GOOD.values())
    with pytest.raises(RuntimeError, match="offsets is not on the device of scores"):
        torch.ops.wtal.soft_nms(segments, scores, offsets.cpu(), *options)
    with pytest.raises(RuntimeError, match="scores is not on the device of the other arguments"):
        torch.ops.wtal.soft_nms(segments, scores.cpu(), offsets, *options)


# ---- torch's own checks -----------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own doing
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("limit", [None, 0, 1])
def test_opcheck(device: str, limit: int | None) -> None:
    segments, scores, offsets = (tensor.to(device) for tensor in GOOD.values())
    op = torch.ops.wtal.soft_nms.default
    torch.library.opcheck(op, (segments, scores.requires_grad_(), offsets, 0.5, 0.5, 0.001, "gaussian", limit))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_into_one_graph(device: str, backend: str) -> None:
    def best_ends(segments: Tensor, scores: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        keep, kept_scores, kept_offsets = soft_nms(segments, scores, offsets, method="linear", min_score=0.4)
        return segments[keep, 1] * kept_scores, kept_offsets + 1

    torch._dynamo.reset()
    compiled = torch.compile(best_ends, fullgraph=True, backend=backend)
    segments, _, offsets = (tensor.to(device) for tensor in GOOD.values())
    for kept, values in ((0, [0.1, 0.2, 0.3]), (1, [0.1, 0.5, 0.2]), (3, [0.8, 0.9, 0.85])):
        scores = torch.tensor(values, device=device)
        expected = best_ends(segments, scores, offsets)
        assert len(expected[0]) == kept
        for a, b in zip(compiled(segments, scores, offsets), expected, strict=True):
            assert torch.equal(a, b)
