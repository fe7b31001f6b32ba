"""Makes the pseudo-labels of all training videos from a teacher's scores, once per stage or once per epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wtal.data.batches import Batch
from wtal.data.features import feature_lengths
from wtal.data.snippet_truth import snippet_truth
from wtal.data.video import Video, VideoSet
from wtal.inference.branch_scores import scaled_frames
from wtal.inference.branches import Branches, members
from wtal.inference.frame_scores import frame_logits
from wtal.inference.localize import FIRES, scale_scores
from wtal.platform.device import Device
from wtal.platform.distributed import SINGLE_PROCESS, Processes
from wtal.settings.config import RunConfig
from wtal.training.pseudo_label_storage import pack_targets, unpack_targets
from wtal.training.rank_labels import IGNORE, PseudoLabelQuality, pseudo_label_quality, rank_labels, temporal_quantiles
from wtal.training.schedule import Stage

WIDEST = 3.0
"""The largest factor by which the adaptive share of a video may differ from the usual share."""


@dataclass(frozen=True)
class PseudoLabels:
    """Pseudo-labels of every training video.

    Attributes:
        targets: int8 ``[T, C]`` for each video: 1 foreground, 0 background, -1 ignored.
        weights: float32 ``[T, C]`` for each video, 0 for classes that it does not have; None: equal weights.
        quality: the quality of the targets, from videos with ground truth; used only in the log and the table.
    """

    targets: list[Tensor]
    weights: list[Tensor] | None
    quality: PseudoLabelQuality

    def tensors(self) -> dict[str, Tensor]:
        """The tensors for a checkpoint, which stores the quality separately."""
        parts = (
            {"targets": self.targets} if self.weights is None else {"targets": self.targets, "weights": self.weights}
        )
        return {f"{part}.{key}": value for part, frames in parts.items() for key, value in pack_targets(frames).items()}

    @classmethod
    def of_tensors(cls, packed: Mapping[str, Tensor], quality: Mapping[str, int]) -> PseudoLabels:
        """The pseudo-labels from the tensors of :meth:`tensors` and the fields of their quality."""

        def part(name: str) -> list[Tensor]:
            return unpack_targets({k.removeprefix(f"{name}."): v for k, v in packed.items() if k.startswith(name)})

        weights = part("weights") if "weights.values" in packed else None
        return cls(part("targets"), weights, PseudoLabelQuality(**quality))

    def crops(self, batch: Batch, width: int) -> tuple[Tensor, Tensor | None]:
        """Targets and weights of the batch's crops, ``[B, width, C]``. Snippets after the end of a crop are ignored."""
        weights = None if self.weights is None else _crops(self.weights, batch, width, 0.0)
        return _crops(self.targets, batch, width, IGNORE), weights


def make_pseudo_labels(
    stage: Stage,
    branches: Branches,
    data: VideoSet,
    videos: Sequence[Video],
    config: RunConfig,
    device: Device,
    seed: int,
    processes: Processes = SINGLE_PROCESS,
) -> PseudoLabels:
    """Make the pseudo-labels of a stage. ``branches`` are in evaluation mode; ``seed`` is for shuffled labels.

    Several processes share the computation of the teacher's scores. Every process gets all pseudo-labels.
    """
    if stage.labels == "truth":
        lengths = feature_lengths(videos).tolist()
        truth = [snippet_truth(data, video, n).to(torch.int8) for video, n in zip(videos, lengths, strict=True)]
        return PseudoLabels(truth, None, PseudoLabelQuality())
    assert stage.teacher is not None
    scores = teacher_scores(branches, stage.teacher, data, videos, config, device, processes)
    labels = [torch.from_numpy(data.multi_hot(video))[None] for video in videos]
    assert (stage.step == "B") == branches.reads_clip(stage.student), stage.student
    distill = config.distill
    foreground, background = (
        (distill.b_foreground, distill.b_background)
        if stage.step == "B"
        else (distill.f_foreground, distill.f_background)
    )
    shares = action_shares(scores, labels) if distill.adaptive else [torch.ones(1, len(data.classes))] * len(videos)
    random = torch.Generator().manual_seed(seed)
    targets: list[Tensor] = []
    weights: list[Tensor] | None = [] if distill.confidence else None
    quality = PseudoLabelQuality()
    for video, score, label, share in zip(videos, scores, labels, shares, strict=True):
        length = torch.tensor([len(score)])
        above, below = 1 - (1 - foreground) * share, 1 - (1 - background) * share
        target = rank_labels(score[None], length, label, above.clamp(min=0.0), below.clamp(min=0.0))
        if stage.labels in ("shuffled", "shifted"):
            target = target[:, _other_times(len(score), stage.labels, random)]
        targets.append(target[0])
        if weights is not None:
            weights.append((2 * scale_scores(score[None], length)[0] - 1).abs() * label)
        if video.instances is not None:  # only for the log
            quality += pseudo_label_quality(target, snippet_truth(data, video, len(score))[None], length, label)
    return PseudoLabels(targets, weights, quality)


def teacher_scores(
    branches: Branches,
    teacher: str,
    data: VideoSet,
    videos: Sequence[Video],
    config: RunConfig,
    device: Device,
    processes: Processes = SINGLE_PROCESS,
) -> list[Tensor]:
    """Frame scores ``[T, C]`` of a teacher: the logits of a branch, or the mean of an ensemble on a common scale."""
    names = members(teacher)
    logits = [frame_logits(branches, name, data, videos, device, processes) for name in names]
    if len(logits) == 1:
        return logits[0]

    def common(name: str, frames: Tensor) -> Tensor:
        length = torch.tensor([len(frames)])
        if config.distill.ensemble == "rank":
            return temporal_quantiles(frames[None], length)[0].float()
        if config.distill.ensemble == "logit":
            return scale_scores(frames[None], length)[0]
        return scaled_frames(branches, name, frames[None].clone(), length, config)[0]

    return [
        torch.stack([common(name, frames) for name, frames in zip(names, video, strict=True)]).mean(0)
        for video in zip(*logits, strict=True)
    ]


def action_shares(scores: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor]:
    """The share of snippets on which the teacher fires, relative to the mean over all videos and their classes.

    Args:
        scores: ``[T, C]`` for each video.
        labels: ``[1, C]`` for each video.

    Returns:
        ``[1, C]`` for each video, from 1 / :data:`WIDEST` to :data:`WIDEST`; 1 for classes that it does not have.
    """
    fired = [
        (scale_scores(score[None], torch.tensor([len(score)])) > FIRES).double().mean(1)
        for score in scores  # [1, C]
    ]
    labelled = torch.cat([share[label > 0] for share, label in zip(fired, labels, strict=True)])
    mean = labelled.mean().clamp(min=torch.finfo(torch.float64).tiny)
    return [
        torch.where(label > 0, (share / mean).clamp(1 / WIDEST, WIDEST), 1.0)
        for share, label in zip(fired, labels, strict=True)
    ]


def _other_times(length: int, how: str, random: torch.Generator) -> Tensor:
    """For each snippet the snippet whose labels it gets, to destroy the time of the labels.

    ``shuffled`` is a random permutation. ``shifted`` rotates the video by a quarter to three quarters of its length.
    """
    if how == "shuffled":
        return torch.randperm(length, generator=random)
    least = length // 4
    on = least + int(torch.randint(length - 2 * least, (), generator=random))
    return torch.arange(length).roll(-on)


def _crops(frames: list[Tensor], batch: Batch, width: int, beyond: float) -> Tensor:
    rows = zip(batch.index.tolist(), batch.start.tolist(), batch.lengths.tolist(), strict=True)
    cropped = torch.full((len(batch.lengths), width, frames[0].shape[1]), beyond, dtype=frames[0].dtype)
    for row, (index, start, length) in enumerate(rows):
        cropped[row, :length] = frames[index][start : start + length]
    return cropped
