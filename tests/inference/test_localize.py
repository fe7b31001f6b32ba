from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.span_check import known_end
from wtal.data.timebase import Timebase
from wtal.data.video import Video
from wtal.inference.localize import Detections, detect, scale_scores, to_seconds
from wtal.settings.config import LocalizeConfig


def proposals(scores: list[float], thresholds: tuple[float, ...], kind: str) -> dict[tuple[int, int], float]:
    """Maximal runs above any threshold and their scores, by the book."""
    found = {}
    size = len(scores)
    for threshold in thresholds:
        start = None
        for t in range(size + 1):
            above = t < size and scores[t] > threshold
            if above and start is None:
                start = t
            if not above and start is not None:
                inside = scores[start:t]
                mean = sum(inside) / len(inside)
                if kind == "max":
                    found[start, t] = max(inside)
                elif kind == "mean":
                    found[start, t] = mean
                else:
                    a, b = start, t - 1
                    length = b - a + 1
                    outer = scores[max(0, int(a - 0.25 * length)) : a]
                    outer = outer + scores[b + 1 : min(size - 1, int(b + 0.25 * length)) + 1]
                    found[start, t] = mean - (sum(outer) / len(outer) if outer else 0.0)
                start = None
    return found


def gaussian_nms(
    found: dict[tuple[int, int], float], sigma: float, low: float, most: int
) -> list[tuple[int, int, float]]:
    alive = {segment: score for segment, score in found.items() if score >= low}
    kept = []
    while alive and len(kept) < most:
        best = max(alive, key=lambda segment: alive[segment])
        kept.append((*best, alive.pop(best)))
        for other in list(alive):
            inter = max(0.0, min(best[1], other[1]) - max(best[0], other[0]))
            overlap = inter / (best[1] - best[0] + 1e-6 + other[1] - other[0] + 1e-6 - inter)
            alive[other] *= math.exp(-overlap * overlap / sigma)
            if alive[other] < low:
                del alive[other]
    return kept


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from(["max", "oic"]),
    st.sampled_from([1, 1, 2, 5]),
)
def test_detect_is_the_definition(seed: int, batch: int, size: int, classes: int, kind: str, parts: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, size + 1, batch)
    scores = random.random((batch, size, classes))
    video_scores = random.random((batch, classes))
    for row, length in enumerate(lengths):
        scores[row, length:] = np.nan
    config = LocalizeConfig(
        theta_cls=0.6, theta_loc=(0.51, 0.23, 0.79), upsample=parts, score=kind, sigma=0.4, max_detections=5
    )
    expected = []
    for b in range(batch):
        for c in range(classes):
            if video_scores[b, c] <= 0.6 and c != video_scores[b].argmax():
                continue
            inside = scores[b, : lengths[b], c]
            spread = inside.max() - inside.min()
            scaled = (inside - inside.min()) / spread if spread > 0 else inside * 0
            middles = (np.arange(parts * len(inside)) + 0.5) / parts - 0.5
            fine = np.interp(middles, np.arange(len(inside)), scaled).tolist()
            found = proposals(fine, config.theta_loc, kind) if lengths[b] > 1 else {(0, parts): 1.0}
            found = {segment: max(score, 0.0) * video_scores[b, c] for segment, score in found.items()}
            expected += [(b, c, *kept) for kept in gaussian_nms(found, 0.4, config.min_score, 5)]
    got = detect(torch.from_numpy(scores), torch.from_numpy(video_scores), torch.from_numpy(lengths), config)
    rows = torch.cat([got.video[:, None], got.label[:, None], got.segment], 1).tolist()
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    wanted = sorted(expected)
    assert [rows[i] for i in order] == [list(item[:4]) for item in wanted]
    np.testing.assert_allclose(got.score[order].tolist(), [item[4] for item in wanted], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 4])
def test_padding_changes_no_bit(parts: int) -> None:
    config = LocalizeConfig(upsample=parts)
    torch.manual_seed(0)
    scores, video_scores = torch.rand(2, 30, 3), torch.rand(2, 3)
    lengths = torch.tensor([30, 11])
    padded = torch.cat([scores, torch.full((2, 500, 3), torch.nan)], 1)
    padded[1, 11:] = torch.nan
    plain = detect(scores, video_scores, lengths, config)
    same = detect(padded, video_scores, lengths, config)
    for name in ("video", "label", "segment", "score"):
        assert torch.equal(getattr(plain, name), getattr(same, name))


def test_the_best_class_is_always_looked_for() -> None:
    scores = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    found = detect(scores, torch.tensor([[0.01, 0.02]]), torch.tensor([2]), LocalizeConfig())
    assert found.label.unique().tolist() == [1]


def test_an_empty_video_and_a_constant_one_give_nothing() -> None:
    scores = torch.ones(2, 4, 1)
    found = detect(scores, torch.ones(2, 1), torch.tensor([0, 4]), LocalizeConfig())
    assert len(found.score) == 0


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"video_scores must be \[1, 2\]"):
        detect(torch.rand(1, 3, 2), torch.rand(1, 3), torch.tensor([3]), LocalizeConfig())


@given(st.integers(0, 2**31))
def test_scaled_scores_span_zero_to_one(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(2, 9, 3, generator=generator) * 100
    scaled = scale_scores(scores, torch.tensor([9, 4]))
    assert torch.equal(scaled[0].amax(0), torch.ones(3))
    assert torch.equal(scaled[0].amin(0), torch.zeros(3))
    assert torch.equal(scaled[1, 4:], torch.zeros(5, 3))
    assert torch.equal(scaled[0].argsort(0), scores[0].argsort(0))


@pytest.mark.parametrize("score", ["max", "mean", "oic"])
def test_a_video_of_one_snippet_is_found_in_its_likely_classes(score: str) -> None:
    scores = torch.rand(3, 5, 3, generator=torch.Generator().manual_seed(0))
    video = torch.tensor([[0.9, 0.1, 0.4], [0.1, 0.15, 0.05], [0.7, 0.6, 0.3]])
    config = LocalizeConfig(score=score)
    found = detect(scores, video, torch.tensor([1, 1, 5]), config)
    alone = [
        (label, segment, pytest.approx(value))
        for at, label, segment, value in zip(
            found.video.tolist(), found.label.tolist(), found.segment.tolist(), found.score.tolist(), strict=True
        )
        if at < 2
    ]
    assert alone == [(0, [0, 1], 0.9), (2, [0, 1], 0.4), (1, [0, 1], 0.15)]
    assert found.video.tolist() == sorted(found.video.tolist())
    plain = detect(scores[2:], video[2:], torch.tensor([5]), config)
    assert torch.equal(found.score[found.video == 2], plain.score)


def test_no_detection_leaves_its_video() -> None:
    found = Detections(
        torch.tensor([0, 0, 0, 1]),
        torch.zeros(4, dtype=torch.int64),
        torch.tensor([[0, 2], [1, 9], [8, 10], [0, 10]]),
        torch.tensor([0.5, 0.25, 0.125, 0.75]),
    )
    early = Timebase(25, 16, 1)  # edges lie 7.5 frames early: the first at -0.3 s
    assert early.edge(0) == pytest.approx(-0.3)
    listed = to_seconds(found, [early, early], ["a"], [4.8, None])
    assert [(d.start, d.end) for d in listed[0]] == [(0.0, early.edge(2)), (early.edge(1), 4.8)]
    assert [(d.start, d.end) for d in listed[1]] == [(0.0, early.edge(10))]


def test_an_end_is_known_where_features_and_annotations_agree() -> None:
    video = Video("a", "test", (), Timebase(25), (Path("a.npy"),), duration=60.0)
    assert known_end(video, 94) == 60.0  # features of 60.16 s
    assert known_end(video, 900) is None  # of 576 s: the annotation is wrong
    assert known_end(dataclasses.replace(video, duration=None), 94) is None


def test_seconds_follow_each_videos_own_timebase() -> None:
    found = Detections(
        torch.tensor([0, 1, 1]),
        torch.tensor([1, 0, 0]),
        torch.tensor([[2, 4], [0, 8], [1, 2]]),
        torch.tensor([0.5, 0.25, 0.75]),
    )
    listed = to_seconds(found, [Timebase(25), Timebase(30, 4, 16)], ["a", "b"])
    assert [(d.start, d.end, d.label, d.score) for d in listed[0]] == [(1.28, 2.56, "b", 0.5)]
    assert [d.score for d in listed[1]] == [0.75, 0.25]
    assert listed[1][1].start == pytest.approx(6 / 30)
    halves = to_seconds(
        dataclasses.replace(found, segment=2 * found.segment, upsample=2), [Timebase(25), Timebase(30, 4, 16)], "ab"
    )
    assert halves == listed
