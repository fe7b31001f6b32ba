"""From a model's scores to detections: wtal's own way, and CoLA's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from wtal.data.predictions import Detection
from wtal.data.timebase import Number, Timebase
from wtal.inference.localize import detect, scale_scores, to_seconds
from wtal.ops import group_proposals, soft_nms
from wtal.settings.config import LocalizeConfig

if TYPE_CHECKING:
    from .models.base import Scored

TWENTIETHS = tuple(k / 20 for k in range(1, 20))


class Rule(ABC):
    """How a model's scores of one video become detections."""

    @abstractmethod
    def __call__(self, scored: Scored, timebase: Timebase, classes: Sequence[str]) -> list[Detection]:
        """Detections in seconds."""


@dataclass(frozen=True)
class Contrast(Rule):
    """:func:`wtal.inference.localize.detect` on the model's scores, proposals scored by the outer-inner contrast.

    Scores are interpolated linearly first, so that a proposal may end between two snippets.
    """

    theta_cls: float = 0.05
    theta_loc: tuple[float, ...] = TWENTIETHS
    sigma: float = 0.2
    finer: int = 4
    """Points on the curve for each snippet."""

    def __call__(self, scored: Scored, timebase: Timebase, classes: Sequence[str]) -> list[Detection]:
        config = LocalizeConfig(
            theta_cls=self.theta_cls,
            theta_loc=self.theta_loc,
            score="oic",
            nms="gaussian",
            sigma=self.sigma,
            min_score=0.001,
            max_detections=100,
        )
        frames = _finer(scored.frames, self.finer)[None]
        found = detect(frames, scored.video[None], torch.tensor([frames.shape[1]]), config)
        return to_seconds(found, [_FinerGrid.of(timebase, self.finer)], classes)[0]


@dataclass(frozen=True)
class TwoCurves(Rule):
    """CoLA's localisation: proposals from the class's curve and from actionness, both scored by the class's contrast.

    Curves are scaled to [0, 1] per video and interpolated linearly, so that a proposal may end between two snippets. As
    published: ``theta_cls`` 0.2, class thresholds 0 to 0.225 and actionness thresholds 0.1 to 0.9 by 0.025, ``gamma``
    0.2 and no product, hard suppression. The defaults are what cross-validation chose (docs/baselines.md).
    """

    theta_cls: float = 0.05
    class_thresholds: tuple[float, ...] = TWENTIETHS
    actionness_thresholds: tuple[float, ...] = TWENTIETHS
    gamma: float = 0.0
    """How much of the video's probability is added to the contrast."""
    times_video: bool = True
    """Whether the contrast is multiplied by the video's probability before that is added."""
    finer: int = 24
    """Points on the curves for each snippet."""
    nms: Literal["gaussian", "hard"] = "gaussian"
    tiou: float = 0.6
    """From which hard suppression acts."""
    sigma: float = 0.2
    """Width of the Gaussian."""

    def __call__(self, scored: Scored, timebase: Timebase, classes: Sequence[str]) -> list[Detection]:
        wanted = (scored.video > self.theta_cls).nonzero()[:, 0].tolist() or [int(scored.video.argmax())]
        frames = _finer(unit(scored.frames[:, wanted]), self.finer)  # [N, W]
        assert scored.actionness is not None
        everywhere = _runs(_finer(unit(scored.actionness[:, None]), self.finer), self.actionness_thresholds)[0]
        segments, owner = _runs(frames, self.class_thresholds)
        count = len(wanted)
        segments = torch.cat([segments, everywhere.repeat(count, 1)])
        owner = torch.cat([owner, torch.arange(count).repeat_interleave(len(everywhere))])
        long = segments[:, 1] - segments[:, 0] > 1
        segments, owner = segments[long], owner[long]
        video = scored.video[wanted]
        score = contrast(frames, segments, owner)
        if self.times_video:
            score = score * video[owner]
        score = (score + self.gamma * video[owner]).clamp(min=0.0)
        order = owner.argsort(stable=True)
        segments, owner, score = segments[order], owner[order], score[order]
        offsets = torch.searchsorted(owner, torch.arange(count + 1))
        kept, score, _ = soft_nms(
            segments.to(score.dtype),
            score,
            offsets,
            sigma=self.sigma,
            iou_threshold=self.tiou,
            method=self.nms,
            max_per_group=200,
        )
        edges = _FinerGrid.of(timebase, self.finer).edge(segments[kept].double().numpy())
        names = [classes[wanted[index]] for index in owner[kept].tolist()]
        rows = zip(edges.tolist(), names, score.tolist(), strict=True)
        return sorted((Detection(start, end, name, value) for (start, end), name, value in rows), key=_falling)


def contrast(curves: Tensor, segments: Tensor, owner: Tensor) -> Tensor:
    """Mean inside minus mean outside, a quarter of the length to each side: ``[P]``.

    Args:
        curves: ``[N, C]``.
        segments: ``[P, 2]``, half open.
        owner: ``[P]``, the column of each.
    """
    sums = torch.cat([curves.new_zeros(1, curves.shape[1], dtype=torch.float64), curves.double().cumsum(0)])
    start, end = segments.unbind(1)
    length = end - start
    low = (start - 0.25 * length).long().clamp(min=0)
    high = ((end - 1 + 0.25 * length).long() + 1).clamp(max=len(curves))
    inside = sums[end, owner] - sums[start, owner]
    outside = sums[high, owner] - sums[low, owner] - inside
    around = high - low - length
    return (inside / length - torch.where(around > 0, outside / around.clamp(min=1), 0.0)).to(curves.dtype)


def unit(curves: Tensor) -> Tensor:
    """``[T, C]`` of one video scaled to [0, 1] per class."""
    return scale_scores(curves[None], torch.tensor([len(curves)]))[0]


def _finer(curves: Tensor, times: int) -> Tensor:
    """``[T, C]`` on ``times`` points a snippet; the value of a snippet stands in its middle, the ends stay level."""
    if times == 1:
        return curves
    at = (np.arange(len(curves) * times) + 0.5) / times - 0.5
    columns = [np.interp(at, np.arange(len(curves)), column) for column in curves.numpy().T]
    return torch.from_numpy(np.stack(columns, 1).astype(np.float32))


@dataclass(frozen=True)
class _FinerGrid(Timebase):
    """The grid of :func:`_finer`'s points: its edges subdivide the snippets'."""

    times: int = 1

    @classmethod
    def of(cls, timebase: Timebase, times: int) -> _FinerGrid:
        return cls(timebase.fps, timebase.stride, timebase.window, times)

    def edge(self, index: Number) -> Number:
        return super().edge(index / self.times)


def _runs(curves: Tensor, thresholds: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Runs above each threshold, each once: ``[P, 2]`` and their columns ``[P]``."""
    segments, owner, _ = group_proposals(curves[None].contiguous(), torch.tensor(thresholds), unique=True)
    return segments, owner[:, 1]


def _falling(detection: Detection) -> float:
    return -detection.score
