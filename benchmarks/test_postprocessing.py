"""Scores to detections to mAP beside the field's own ways: ``pytest benchmarks/test_postprocessing.py``.

Each benchmark first checks that its sides agree. The bit-exact checks let the C++ loops use wtal's exp and its order of
equal scores; they are timed with libm's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import peers
import pytest
import torch
from workloads import CLASSES, TestVideos, frame_scores, random_segments

from wtal.evaluation.average_precision import average_precisions
from wtal.inference.localize import detect
from wtal.ops import group_proposals, soft_nms
from wtal.settings.config import LocalizeConfig

LEVELS = np.linspace(0.1, 0.9, 10, dtype=np.float32)
WORKLOADS = {
    "smooth scores": (25 / 16, False),
    "smooth scores, stride 4": (25 / 4, False),
    "noisy scores": (25 / 16, True),
    "noisy scores, stride 4": (25 / 4, True),
}


def same(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def one_group(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return *random_segments(count), torch.tensor([0, count])


# ---- soft-NMS -------------------------------------------------------------------------------------------------------
WANTED = {(10_000, 200): (100, 8), (30_000, None): (12, None), (2_000, None): (5, None)}


@functools.cache
def check_soft_nms(count: int, limit: int | None) -> None:
    problem = one_group(count)
    expected = peers.loop_soft_nms(*problem, limit=limit, tuned=True, exact=True)
    assert same(soft_nms(*problem, max_per_group=limit), expected)
    libm = peers.loop_soft_nms(*problem, limit=limit, tuned=True)
    torch.testing.assert_close(libm[1], expected[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", ["wtal", "plain C++ loop", "tuned C++ loop"])
@pytest.mark.parametrize(
    ("count", "limit"), [(2_000, 200), (2_000, None), (10_000, 200), (10_000, None), (30_000, None)]
)
def test_soft_nms(measure: Any, count: int, limit: int | None, side: str) -> None:
    check_soft_nms(count, limit)
    problem = one_group(count)
    plain, tuned = WANTED.get((count, limit), (None, None))
    function, wanted = {
        "wtal": (lambda: soft_nms(*problem, max_per_group=limit), None),
        "plain C++ loop": (lambda: peers.loop_soft_nms(*problem, limit=limit), plain),
        "tuned C++ loop": (lambda: peers.loop_soft_nms(*problem, limit=limit, tuned=True), tuned),
    }[side]
    measure(f"soft_nms, {count} segments, {'all' if limit is None else f'best {limit}'}", side, function, 1, wanted)


@pytest.mark.parametrize("count", [2_000, 10_000])
def test_soft_nms_of_a_peer_module(measure: Any, pytestconfig: pytest.Config, count: int) -> None:
    file = pytestconfig.getoption("--peer-module")
    if not file:
        pytest.skip("--peer-module FILE is not given")
    module, (segments, scores, offsets) = peers.peer_module(file), one_group(count)
    _, kept = peers.module_soft_nms(module, segments, scores)
    torch.testing.assert_close(kept, soft_nms(segments, scores, offsets)[1], rtol=1e-4, atol=1e-6)
    function = functools.partial(peers.module_soft_nms, module, segments, scores)
    measure(f"soft_nms, {count} segments, all", "--peer-module", function)


@pytest.mark.parametrize("side", ["wtal", "wtal on one thread"])
def test_soft_nms_threads(measure: Any, side: str) -> None:
    groups = [random_segments(10_000, seed) for seed in range(CLASSES)]
    segments, scores = (torch.cat(parts) for parts in zip(*groups, strict=True))
    offsets = torch.arange(CLASSES + 1) * 10_000
    threads, wanted = (2, None) if side == "wtal" else (1, 1.7)
    function = functools.partial(soft_nms, segments, scores, offsets)
    measure("soft_nms, 20 classes of 10000 segments, all", side, function, threads, wanted)


@pytest.mark.parametrize("side", ["wtal", "torchvision.ops.nms"])
@pytest.mark.parametrize("count", [2_000, 10_000, 30_000])
def test_hard_nms(measure: Any, count: int, side: str) -> None:
    torchvision = pytest.importorskip("torchvision")
    segments, scores, offsets = one_group(count)
    scores = torch.randperm(count, generator=torch.Generator().manual_seed(0)) / count  # ties have no order there
    boxes = torch.stack([segments[:, 0], torch.zeros(count), segments[:, 1], torch.ones(count)], 1)
    sides = {
        "wtal": lambda: soft_nms(segments, scores, offsets, method="hard", min_score=0.0)[0],
        "torchvision.ops.nms": lambda: torchvision.ops.nms(boxes, scores, 0.5),
    }
    assert torch.equal(sides["wtal"](), sides["torchvision.ops.nms"]())
    measure(f"hard NMS, {count} segments", side, sides[side])


# ---- grouping -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("side", ["wtal", "vectorised torch", "NumPy a class and threshold"])
@pytest.mark.parametrize("smooth", [25, 1])
def test_grouping(measure: Any, smooth: int, side: str) -> None:
    scores = torch.from_numpy(frame_scores(2304, CLASSES, smooth, np.random.default_rng(0)))
    levels = torch.from_numpy(LEVELS)
    sides = {
        "wtal": lambda: group_proposals(scores[None], levels),
        "vectorised torch": lambda: peers.torch_grouping(scores, levels),
        "NumPy a class and threshold": lambda: peers.numpy_grouping(scores.numpy(), LEVELS),
    }
    segments, owner, score = sides["wtal"]()
    assert same((segments, owner[:, 1:], score), sides["vectorised torch"]())
    listed = [
        {(start, end, value) for (start, end), value in zip_rows(segments, score, owner, c)} for c in range(CLASSES)
    ]
    assert listed == [set(rows) for rows in sides["NumPy a class and threshold"]()]
    kind = f"averaged over {smooth}" if smooth > 1 else "noise"
    wanted = 3 if side == "vectorised torch" else None
    group = f"group_proposals, T = 2304, C = 20, 10 thresholds, scores: {kind}, {len(score)} proposals"
    measure(group, side, sides[side], 1, wanted)


def zip_rows(segments: torch.Tensor, score: torch.Tensor, owner: torch.Tensor, label: int) -> Any:
    own = owner[:, 1] == label
    return zip(segments[own].tolist(), score[own].tolist(), strict=True)


# ---- scores to detections to mAP ------------------------------------------------------------------------------------
CONFIG = LocalizeConfig(theta_cls=-1.0, theta_loc=tuple(LEVELS.tolist()), max_detections=200)


@functools.cache
def test_videos(name: str) -> TestVideos:
    return TestVideos(*WORKLOADS[name])


test_videos.__test__ = False  # type: ignore[attr-defined]


def wtal_detect(data: TestVideos) -> peers.Detections:
    parts = [detect(scores, of_videos, lengths, CONFIG) for scores, of_videos, lengths in data.batches]
    first = np.cumsum([0, *(len(lengths) for _, _, lengths in data.batches)])
    rows = [torch.stack([part.video + int(at), part.label], 1) for part, at in zip(parts, first[:-1], strict=True)]
    segments, scores = torch.cat([part.segment for part in parts]), torch.cat([part.score for part in parts])
    return torch.cat(rows).numpy(), segments.numpy(), scores.numpy()


def torch_detect(data: TestVideos, exact: bool = False) -> peers.Detections:
    videos, of_videos = [torch.from_numpy(video) for video in data.videos], torch.from_numpy(data.video_scores)
    return peers.torch_detect(videos, of_videos, torch.from_numpy(LEVELS), CONFIG.sigma, CONFIG.max_detections, exact)


def numpy_detect(data: TestVideos) -> peers.Detections:
    return peers.numpy_detect(data.videos, data.video_scores, LEVELS, CONFIG.sigma, CONFIG.max_detections)


@functools.cache
def check_detect(name: str) -> peers.Detections:
    data = test_videos(name)
    found = wtal_detect(data)
    for one, other in zip(found, torch_detect(data, exact=True), strict=True):
        np.testing.assert_array_equal(one, other)
    by_numpy = numpy_detect(data)  # NumPy's exp differs in the last place, so near-ties may change places
    assert abs(len(by_numpy[2]) - len(found[2])) <= 1e-4 * len(found[2])
    np.testing.assert_allclose(np.sort(by_numpy[2])[-10_000:], np.sort(found[2])[-10_000:], rtol=1e-4)
    return found


@pytest.mark.parametrize("side", ["wtal", "wtal on two threads", "vectorised torch + tuned C++ loop", "NumPy loops"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_detect(measure: Any, name: str, side: str) -> None:
    found, data = check_detect(name), test_videos(name)
    function, threads, wanted = {
        "wtal": (wtal_detect, 1, None),
        "wtal on two threads": (wtal_detect, 2, None),
        "vectorised torch + tuned C++ loop": (torch_detect, 1, 5),
        "NumPy loops": (numpy_detect, 1, 200),
    }[side]
    group = (
        f"scores to detections, 212 videos ({data.source}), {name}, mean T {data.lengths.mean():.0f}, 20 classes, "
        f"10 thresholds, {len(found[2])} detections"
    )
    measure(group, side, functools.partial(function, data), threads, wanted)


@pytest.mark.parametrize("side", ["wtal", "official evaluator's algorithm"])
@pytest.mark.parametrize("name", WORKLOADS)
def test_evaluate(measure: Any, name: str, side: str) -> None:
    """From arrays to mAP: reading a file, which both would do, is not part of it."""
    data, found, tiou = test_videos(name), check_detect(name), np.linspace(0.1, 0.7, 7)
    rows, segments, scores = found

    def ours() -> np.ndarray:
        return average_precisions(
            segments, scores, rows[:, 0], rows[:, 1], data.truth_segments, *data.truth_rows.T, tiou, CLASSES
        )

    def official() -> np.ndarray:
        return peers.official_map(found, data.truth_rows, data.truth_segments, tiou, CLASSES)

    if side == "wtal":
        np.testing.assert_allclose(ours(), official(), rtol=1e-12)
    wanted = None if side == "wtal" else 50
    measure(f"evaluation, {name}, {len(scores)} detections", side, ours if side == "wtal" else official, 1, wanted)


# ---- how it grows ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("side", ["wtal", "tuned C++ loop"])
@pytest.mark.parametrize("count", [100, 1_000, 10_000, 30_000, 100_000])
def test_soft_nms_scaling(measure: Any, count: int, side: str) -> None:
    problem = one_group(count)
    if side != "wtal" and count > 30_000:
        pytest.skip("quadratic: several seconds")
    function = soft_nms if side == "wtal" else functools.partial(peers.loop_soft_nms, tuned=True)
    measure(f"scaling: soft_nms, N = {count}", side, functools.partial(function, *problem))


@pytest.mark.parametrize("side", ["wtal", "vectorised torch"])
@pytest.mark.parametrize("snippets", [500, 2_000, 10_000, 100_000])
def test_grouping_scaling(measure: Any, snippets: int, side: str) -> None:
    scores = torch.from_numpy(frame_scores(snippets, CLASSES, 25, np.random.default_rng(0)))
    levels = torch.from_numpy(LEVELS)
    function = (
        functools.partial(group_proposals, scores[None], levels)
        if side == "wtal"
        else functools.partial(peers.torch_grouping, scores, levels)
    )
    measure(f"scaling: group_proposals, T = {snippets}", side, function)
