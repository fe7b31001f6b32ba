"""A linear discriminant on snippets: which classes a video has, in closed form from video-level labels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

SHRINKAGE = 1.0
"""The covariance gets this share of its mean variance on its diagonal (docs/real.md)."""
ABSENT = -1e4
"""Score of a class that no training video has: finite, and no probability beside any other."""


class LinearDiscriminant(nn.Module):
    """Fisher's linear discriminant of single snippets (Fisher, 1936; Hastie et al., ch. 4.3), with equal priors.

    Every snippet of a training video counts as one of the video's classes. That is wrong for its background, but what
    is common to all classes' background does not tell them apart, and there is nothing to overfit by gradient
    descent: from few videos it mistakes other videos than the branch does.

    Args:
        input_dim: D, width of the features.
        num_classes: C.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, input_dim: int, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(num_classes, input_dim))
        self.register_buffer("bias", torch.zeros(num_classes))

    def forward(self, rows: Tensor) -> Tensor:
        """``[R, D]`` -> log-likelihoods of the classes but for what all have in common, ``[R, C]``; never in half."""
        with torch.autocast(rows.device.type, enabled=False):
            return torch.addmm(self.bias.to(rows.dtype), rows, self.weight.T.to(rows.dtype))

    def fit(self, videos: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Set the weights, in one pass over the videos and in float64.

        A class's mean is the mean of its videos' means. The covariance is that of all snippets around the mean of
        their video's class means, plus :data:`SHRINKAGE` of its mean variance on the diagonal. Videos without a label
        are left out.

        Args:
            videos: features ``[T, D]``, about standardised, and labels ``[C]`` of zeros and ones.
        """
        width = self.weight.shape[1]
        square = torch.zeros(width, width, dtype=torch.float64)
        sums, labels, counts = [], [], []
        for rows, own in videos:
            if not own.any() or not len(rows):
                continue
            x = rows.detach().double().cpu()
            square.addmm_(x.T, x)
            sums.append(x.sum(0))
            labels.append(own.double().cpu())
            counts.append(len(x))
        if not counts:
            raise ValueError("videos has none with a label, expected at least one")
        total, has, count = torch.stack(sums), torch.stack(labels), torch.tensor(counts, dtype=torch.float64)[:, None]
        videos_of = has.sum(0)[:, None]  # [C, 1]
        class_means = (has.T @ (total / count)) / videos_of.clamp(min=1)
        expected = (has @ class_means) / has.sum(1, keepdim=True)  # [V, D]: what a snippet of the video should be
        cross = total.T @ expected
        scatter = square - cross - cross.T + expected.T @ (count * expected)
        covariance = scatter / count.sum()
        variance = float(covariance.diagonal().mean())
        covariance.diagonal().add_(SHRINKAGE * variance if variance > 0 else 1.0)
        mean = total.sum(0) / count.sum()
        apart = class_means - mean
        weight = torch.linalg.solve(covariance, apart.T).T
        bias = -(apart * weight).sum(1) / 2 - weight @ mean
        seen = videos_of > 0
        self.weight.copy_(weight.masked_fill(~seen, 0))
        self.bias.copy_(bias.masked_fill(~seen[:, 0], ABSENT))
