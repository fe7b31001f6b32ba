"""group_proposals against a definition in plain Python, over random and extreme inputs."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from host_cuda.backends import DEVICES
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wtal.ops import group_proposals


def runs_above(column: list[float], threshold: float) -> list[tuple[int, int]]:
    above = [value > threshold for value in column] + [False]
    runs, start = [], None
    for t, is_above in enumerate(above):
        if is_above and start is None:
            start = t
        elif not is_above and start is not None:
            runs.append((start, t))
            start = None
    return runs


def run_score(column: list[float], start: int, end: int, score: str) -> float:
    a, b, length = start, end - 1, end - start
    if score == "max":
        return max(column[start:end])
    inside = left_to_right_sum(column[a : b + 1]) / length
    if score == "mean":
        return inside
    left, right = max(0, int(a - 0.25 * length)), min(len(column) - 1, int(b + 0.25 * length))
    outer = column[left:a] + column[b + 1 : right + 1]
    return inside - (left_to_right_sum(outer) / len(outer) if outer else 0.0)


def definition(
    scores: np.ndarray,
    thresholds: np.ndarray,
    lengths: np.ndarray | None = None,
    keep: np.ndarray | None = None,
    min_length: int = 1,
    score: str = "max",
    unique: bool = False,
    rescale: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every list is summed from left to right in float64: sum() of Python does more than that from 3.12 on."""
    batch, total, classes = scores.shape
    thresholds = thresholds.astype(scores.dtype)
    segments, owner, values = [], [], []
    for b in range(batch):
        for c in range(classes):
            if keep is not None and not keep[b, c]:
                continue
            inside = scores[b, : total if lengths is None else lengths[b], c]
            if rescale and len(inside):
                inside = (inside - inside.min()) / np.maximum(inside.max() - inside.min(), np.finfo(inside.dtype).tiny)
            column = [float(x) for x in inside]
            found = [runs_above(column, float(threshold)) for threshold in thresholds]
            for k, threshold in enumerate(thresholds):
                earlier = [
                    other for other, lower in enumerate(thresholds) if (lower, other) < (threshold, k) and other != k
                ]
                for run in found[k]:
                    if run[1] - run[0] < min_length or (unique and any(run in found[other] for other in earlier)):
                        continue
                    segments.append(run)
                    owner.append((b, c, k))
                    values.append(run_score(column, *run, score))
    return (
        np.array(segments, np.int64).reshape(-1, 2),
        np.array(owner, np.int64).reshape(-1, 3),
        np.array(values, np.float64).astype(scores.dtype),
    )


def left_to_right_sum(values: list[float]) -> float:
    total = 0.0
    for value in values:
        total = total + value
    return total


def assert_same(found: tuple[Tensor, ...], expected: tuple[np.ndarray, ...]) -> None:
    for tensor, array in zip(found, expected, strict=True):
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        tensor_as_array = tensor.cpu().numpy()
        assert tensor_as_array.dtype == array.dtype
        assert tensor_as_array.shape == array.shape
        # The same bits, NaN included; which NaN does not matter, nor does the sign of zero in a maximum.
        np.testing.assert_array_equal(tensor_as_array, array)


def strided(tensor: Tensor, order: tuple[int, int, int], gap: int) -> Tensor:
    """The same values in another memory layout: dimensions permuted, every gap-th element used."""
    shape = [tensor.shape[dim] for dim in order]
    wide = torch.full([*shape[:-1], shape[-1] * gap], torch.nan, dtype=tensor.dtype, device=tensor.device)
    view = wide[..., ::gap].permute([order.index(dim) for dim in range(3)])
    return view.copy_(tensor)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 63, 64, 65, 96, 128])
def test_runs_that_touch_the_edges_of_words(device: str, length: int) -> None:
    """Kernels look at 32 or 64 snippets at a time; columns: everywhere, at one end, at both, up to and from an edge."""
    columns = np.zeros((length, 6), np.float32)
    columns[:, 0] = columns[-1, 1] = columns[0, 2] = columns[[0, -1], 3] = columns[:32, 4] = columns[32:, 5] = 1.0
    for beyond in (0, 1, 32):
        scores = np.concatenate([columns, np.ones((beyond, 6), np.float32)])[None]
        lengths, thresholds = np.array([length]), np.array([0.5], np.float32)
        expected = definition(scores, thresholds, lengths)
        arguments = (torch.from_numpy(array).to(device) for array in (scores, thresholds, lengths))
        assert_same(group_proposals(*arguments), expected)


@pytest.mark.parametrize("device", DEVICES)
def test_more_cells_than_are_numbered_at_a_time(device: str) -> None:
    """A block numbers 1024 cells (video, class, threshold), then the next."""
    rng = np.random.default_rng(0)
    scores, thresholds = rng.random((3, 5, 29), dtype=np.float32), np.linspace(0.1, 0.9, 37, dtype=np.float32)
    expected = definition(scores, thresholds)
    assert_same(group_proposals(torch.from_numpy(scores).to(device), torch.from_numpy(thresholds).to(device)), expected)


@pytest.mark.parametrize("device", DEVICES)
@given(data=st.data())
def test_equals_the_definition(device: str, data: st.DataObject) -> None:
    draw = data.draw
    batch, total, classes = draw(st.integers(0, 3)), draw(st.integers(0, 140)), draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    kind = draw(st.sampled_from(["real", "integers", "equal", "smooth", "with NaN"]))
    scores = rng.random((batch, total, classes))
    if kind == "integers":
        scores = np.floor(scores * 4)
    elif kind == "equal":
        scores = np.full_like(scores, 0.5)
    elif kind == "smooth" and total:
        scores = np.cumsum(scores - 0.5, axis=1)
    elif kind == "with NaN":
        scores[rng.random(scores.shape) < 0.2] = np.nan
    scores = scores.astype(dtype)
    levels = draw(st.integers(0, 5))
    grid = [-1.0, 0.0, 0.1, 0.5, 0.5, 1.0, 2.0, 5.0]
    thresholds = rng.choice(grid, levels) if draw(st.booleans()) else rng.random(levels)
    lengths = draw(st.none() | st.just(rng.choice([0, total, total // 2], batch).astype(np.int64)))
    keep = draw(st.none() | st.just(rng.random((batch, classes)) < 0.7))
    min_length = draw(st.integers(1, 4))
    score = draw(st.sampled_from(["max", "mean", "oic"]))
    unique = draw(st.booleans())

    rescale = draw(st.booleans())

    expected = definition(scores, thresholds, lengths, keep, min_length, score, unique, rescale)
    tensor = strided(
        torch.from_numpy(scores).to(device), draw(st.permutations(range(3)).map(tuple)), draw(st.integers(1, 2))
    )
    found = group_proposals(
        tensor,
        torch.from_numpy(thresholds).to(device),
        None if lengths is None else torch.from_numpy(lengths).to(device),
        None if keep is None else torch.from_numpy(keep).to(device),
        min_length,
        score,
        unique,
        rescale,
    )
    assert_same(found, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_a_small_example(device: str) -> None:
    scores = torch.tensor([0.1, 0.9, 0.8, 0.2, 0.6, 0.0, 0.7], device=device).reshape(1, 7, 1)
    thresholds = torch.tensor([0.5, 0.15, 0.85], device=device)
    segments, owner, score = group_proposals(scores, thresholds)
    assert segments.tolist() == [[1, 3], [4, 5], [6, 7], [1, 5], [6, 7], [1, 2]]
    assert owner.tolist() == [[0, 0, 0]] * 3 + [[0, 0, 1]] * 2 + [[0, 0, 2]]
    assert score.tolist() == pytest.approx([0.9, 0.6, 0.7, 0.9, 0.7, 0.9])
    segments, owner, _ = group_proposals(scores, thresholds, unique=True)
    assert segments.tolist() == [[1, 3], [4, 5], [1, 5], [6, 7], [1, 2]]  # the lower threshold keeps [6, 7)
    assert owner[:, 2].tolist() == [0, 0, 1, 1, 2]
    _, _, score = group_proposals(scores, thresholds[1:2], score="oic")
    # [1..4]: a quarter of 4 to each side is snippets 0 and 5; [6..6]: int(6 - 0.25) = 5.
    assert score.tolist() == pytest.approx([(0.9 + 0.8 + 0.2 + 0.6) / 4 - 0.05, 0.7])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(0, 5, 2), (2, 0, 3), (2, 5, 0), (2, 5, 3)])
@pytest.mark.parametrize("levels", [0, 1, 3])
def test_no_proposal(device: str, shape: tuple[int, int, int], levels: int) -> None:
    found = group_proposals(torch.zeros(shape, device=device), torch.zeros(levels, device=device), score="oic")
    assert [list(tensor.shape) for tensor in found] == [[0, 2], [0, 3], [0]]
    assert [tensor.dtype for tensor in found] == [torch.int64, torch.int64, torch.float32]
    assert {tensor.device.type for tensor in found} == {device}


@pytest.mark.parametrize("device", DEVICES)
def test_many_cells(device: str) -> None:
    """More cells than one task, block or chunk of the numbering holds."""
    rng = np.random.default_rng(3)
    scores = rng.random((7, 50, 30), dtype=np.float32)
    thresholds = np.linspace(0.05, 1.05, 12)
    expected = definition(scores, thresholds, score="mean", unique=True)
    found = group_proposals(
        torch.from_numpy(scores).to(device), torch.from_numpy(thresholds).to(device), score="mean", unique=True
    )
    assert_same(found, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("unique", [False, True])
def test_more_thresholds_and_classes_than_a_warp_has_lanes(device: str, unique: bool) -> None:
    """The next lower threshold is another lane's, or one of other 32; runs and what lies before them cross 32."""
    rng = np.random.default_rng(4)
    scores = np.cumsum(rng.random((2, 130, 34), dtype=np.float32) - 0.5, axis=1).astype(np.float32)
    thresholds = rng.permutation(np.linspace(-3, 3, 35))
    thresholds[34] = thresholds[0]
    lengths = np.array([130, 64])
    expected = definition(scores, thresholds, lengths, min_length=2, unique=unique)
    found = group_proposals(
        *(torch.from_numpy(array).to(device) for array in (scores, thresholds, lengths)), min_length=2, unique=unique
    )
    assert_same(found, expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("score", ["max", "mean", "oic"])
def test_what_lies_beyond_a_video_changes_nothing(device: str, score: Any) -> None:
    scores = torch.rand(3, 20, 2, device=device)
    lengths = torch.tensor([20, 13, 0], device=device)
    thresholds = torch.tensor([0.3, 0.6], device=device)
    padded = torch.cat([scores, torch.full((3, 500, 2), torch.nan, device=device)], 1)
    padded[1, 13:] = torch.nan
    for short, long in zip(
        group_proposals(scores, thresholds, lengths, score=score),
        group_proposals(padded, thresholds, lengths, score=score),
        strict=True,
    ):
        assert torch.equal(short, long)


def test_unique_means_no_segment_twice() -> None:
    scores = torch.randint(0, 3, (2, 30, 2)).float()
    thresholds = torch.tensor([1.5, 0.5, 0.5, 1.0, -1.0])
    segments, owner, _ = group_proposals(scores, thresholds, unique=True)
    rows = torch.cat([owner[:, :2], segments], 1)
    everything, all_owner, _ = group_proposals(scores, thresholds)
    assert len(rows.unique(dim=0)) == len(rows)
    assert torch.equal(rows.unique(dim=0), torch.cat([all_owner[:, :2], everything], 1).unique(dim=0))


def test_thresholds_take_the_precision_of_the_scores() -> None:
    scores = torch.full((1, 1, 1), 0.1)
    assert len(group_proposals(scores, torch.tensor([0.1], dtype=torch.float64))[0]) == 0
    assert len(group_proposals(scores.double(), torch.tensor([0.1], dtype=torch.float64))[0]) == 1


def test_outputs_carry_no_gradient() -> None:
    scores = torch.rand(1, 9, 2, requires_grad=True)
    thresholds = torch.tensor([0.2], requires_grad=True)
    for op in (group_proposals, lambda *args: torch.ops.wtal.group_proposals(*args, None, None, 1, "mean", False)):
        assert not any(tensor.requires_grad for tensor in op(scores, thresholds))


# ---- errors -----------------------------------------------------------------------------------------------------
GOOD: dict[str, Any] = {
    "scores": torch.zeros(2, 5, 3),
    "thresholds": torch.zeros(4),
    "lengths": torch.tensor([5, 0]),
    "keep": torch.ones(2, 3, dtype=torch.bool),
}
BAD = [
    ("scores", torch.zeros(5, 3), "scores has shape [5, 3], expected [B, T, C]"),
    ("scores", torch.zeros(2, 5, 3).half(), "scores has dtype torch.float16, expected torch.float32 or torch.float64"),
    ("thresholds", torch.zeros(()), "thresholds has shape [], expected [K]"),
    ("thresholds", torch.zeros(4, device="meta"), "thresholds is on meta, scores on cpu: expected one device"),
    ("lengths", torch.zeros(3, dtype=torch.int64), "lengths has shape [3], expected [B] = [2]"),
    ("lengths", torch.zeros(2, dtype=torch.int32), "lengths has dtype torch.int32, expected torch.int64"),
    ("lengths", torch.zeros(2, dtype=torch.int64, device="meta"), "lengths is on meta, scores on cpu"),
    ("keep", torch.ones(3, 2, dtype=torch.bool), "keep has shape [3, 2], expected [B, C] = [2, 3]"),
    ("keep", torch.ones(2, 3), "keep has dtype torch.float32, expected torch.bool"),
    ("keep", torch.ones(2, 3, dtype=torch.bool, device="meta"), "keep is on meta, scores on cpu"),
    ("min_length", 0, "min_length is 0, expected at least 1"),
    ("score", "median", "score is 'median', expected 'max', 'mean' or 'oic'"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_a_wrong_argument_is_named(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        group_proposals(**{**GOOD, name: value})


RAW_BAD = [
    ("scores", torch.zeros(5, 3), "scores has shape [5, 3], expected [B, T, C]"),
    ("scores", torch.zeros(2, 5, 3, dtype=torch.int64), "scores has dtype Long, expected float32 or float64"),
    ("thresholds", torch.zeros(2, 2), "thresholds has shape [2, 2], expected [K]"),
    ("thresholds", torch.zeros(4).double(), "thresholds has dtype Double, expected Float"),
    ("lengths", torch.zeros(3, dtype=torch.int64), "lengths has shape [3], expected [B] to go with scores [2, 5, 3]"),
    ("lengths", torch.zeros(2), "lengths has dtype Float, expected Long"),
    ("lengths", torch.tensor([5, 6]), "lengths[1] is 6, expected 0 to T = 5"),
    ("lengths", torch.tensor([-1, 5]), "lengths[0] is -1, expected 0 to T = 5"),
    ("keep", torch.ones(3, 2, dtype=torch.bool), "keep has shape [3, 2], expected [B, C] to go with scores [2, 5, 3]"),
    ("keep", torch.ones(2, 3), "keep has dtype Float, expected Bool"),
    ("min_length", 0, "min_length is 0, expected at least 1"),
    ("score", "median", "score is 'median', expected 'max', 'mean' or 'oic'"),
]


@pytest.mark.parametrize(("name", "value", "message"), RAW_BAD)
def test_the_raw_op_checks_what_memory_accesses_rest_on(name: str, value: Any, message: str) -> None:
    arguments = {**GOOD, "min_length": 1, "score": "max", "unique": False, name: value}
    with pytest.raises(RuntimeError, match=re.escape(f"group_proposals: {message}")):
        torch.ops.wtal.group_proposals(**arguments)


@pytest.mark.gpu
def test_cuda_clamps_lengths_and_rejects_mixed_devices() -> None:
    scores, thresholds = torch.rand(2, 6, 2, device="cuda"), torch.tensor([0.5], device="cuda")
    outside = group_proposals(scores, thresholds, torch.tensor([99, -3], device="cuda"))
    inside = group_proposals(scores, thresholds, torch.tensor([6, 0], device="cuda"))
    assert all(torch.equal(a, b) for a, b in zip(outside, inside, strict=True))
    with pytest.raises(RuntimeError, match="thresholds is not on the device of scores"):
        torch.ops.wtal.group_proposals(scores, thresholds.cpu(), None, None, 1, "max", False)
    with pytest.raises(RuntimeError, match="scores is not on the device of the other arguments"):
        torch.ops.wtal.group_proposals(scores.cpu(), thresholds, None, None, 1, "max", False)


# ---- torch's own checks -----------------------------------------------------------------------------------------
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck's own doing
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("threshold", [0.5, 2.0])  # 2: no proposal
def test_opcheck(device: str, threshold: float) -> None:
    scores = torch.rand(2, 6, 3, device=device, requires_grad=True)
    thresholds = torch.tensor([0.1, threshold], device=device)
    lengths = torch.tensor([6, 2], device=device)
    keep = torch.tensor([[True, False, True], [True, True, True]], device=device)
    op = torch.ops.wtal.group_proposals.default
    torch.library.opcheck(op, (scores, thresholds, lengths, keep, 1, "oic", True))
    torch.library.opcheck(op, (scores.detach().double(), thresholds.double(), None, None, 2, "max", False))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_into_one_graph(device: str, backend: str) -> None:
    def proposals(scores: Tensor, thresholds: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        segments, owner, score = group_proposals(scores, thresholds, lengths, score="mean", unique=True)
        return segments[:, 1] - segments[:, 0] + owner[:, 2], score * 2

    torch._dynamo.reset()
    compiled = torch.compile(proposals, fullgraph=True, backend=backend)
    lengths = torch.tensor([8, 4], device=device)
    scores = torch.rand(2, 8, 2, device=device) * 0.5
    one = scores.clone()
    one[0, 3, 1] = 0.9
    for found, threshold in ((0, 0.8), (1, 0.8), (None, 0.2)):  # no proposal, one, several
        arguments = (one if found == 1 else scores, torch.tensor([threshold], device=device), lengths)
        expected = proposals(*arguments)
        assert found in (None, len(expected[0]))
        for a, b in zip(compiled(*arguments), expected, strict=True):
            assert torch.equal(a, b)
