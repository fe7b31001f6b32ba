"""One step's loss and gradients: the batch in one go, or a few videos at a time, or shared with other processes."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from wtal.data.batches import Batch
from wtal.inference.branches import Branches
from wtal.platform.device import Device
from wtal.platform.distributed import Peers
from wtal.settings.config import RunConfig
from wtal.training.losses import DistillLoss, step_loss
from wtal.training.pseudo_labels import Lesson


def add_gradients(
    branches: Branches,
    student: str,
    batch: Batch,
    lesson: Lesson | None,
    config: RunConfig,
    device: Device,
    peers: Peers,
) -> dict[str, float]:
    """Add to the student's gradients those that this process's videos have in the batch's loss.

    The loss is the mean over all videos of the batch, whoever has them: each video's gradients are divided by
    ``batch.videos``, so that gradients summed over parts and processes are those of the batch in one go, to rounding.

    Args:
        branches: of which one learns.
        student: that one, in training mode.
        batch: this process's share, on the CPU; ``config.batch.micro`` videos of it at a time go to the device.
        lesson: pseudo-labels, None for video labels alone.
        config: of batch and loss.
        device: where to compute.
        peers: the processes that share the batch.

    Returns:
        ``loss`` and its terms, averaged over all videos of the batch; the same in every process.
    """
    names = ["total", "video", *([] if lesson is None else (field.name for field in fields(DistillLoss)))]
    means = torch.zeros(len(names), dtype=torch.float64)
    for part in batch.parts(config.batch.micro):
        terms = _terms(branches, student, part, lesson, config, device)
        share = len(part.lengths) / part.videos
        loss = terms["total"].mean() * share
        loss.backward()
        means += torch.stack([terms[name].detach().mean() for name in names]).cpu().double() * share
    total, *rest = peers.add(means.tolist())
    return {"loss": total, **dict(zip(names[1:], rest, strict=True))}


def _terms(
    branches: Branches, student: str, part: Batch, lesson: Lesson | None, config: RunConfig, device: Device
) -> dict[str, Tensor]:
    """The loss of each video and its terms, ``[B]`` each."""
    here = part.to(device.name)
    with device.autocast():
        logits = branches.logits(student, here)
    logits = logits.float()
    target = weights = None
    if lesson is not None:
        cropped = lesson.crops(part, logits.shape[1])
        target, weights = (None if found is None else found.to(device.name) for found in cropped)
    return step_loss(logits, here.lengths, here.labels, config.loss, target, weights)
