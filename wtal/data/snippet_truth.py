"""Ground truth on the snippet grid. Only for evaluation: training never uses it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from wtal.data.video import Video, VideoSet


def snippet_truth(data: VideoSet, video: Video, num_snippets: int) -> Tensor:
    """Whether the centre of each snippet is inside an instance of each class: bool ``[T, C]``.

    Raises:
        ValueError: the video has no temporal annotation.
    """
    if video.instances is None:
        raise ValueError(f"video {video.id} has no temporal annotation")
    centers = video.timebase.center(np.arange(num_snippets, dtype=np.float64))
    truth = np.zeros((num_snippets, len(data.classes)), dtype=bool)
    for instance in video.instances:
        truth[(centers >= instance.start) & (centers < instance.end), data.classes.index(instance.label)] = True
    return torch.from_numpy(truth)
