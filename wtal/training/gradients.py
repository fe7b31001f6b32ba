"""The loss and the gradients of one step, also if the batch is computed in parts or by several processes."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from wtal.data.batches import Batch
from wtal.inference.branch_scores import is_softmax
from wtal.inference.branches import Branches
from wtal.platform.device import Device
from wtal.platform.distributed import Processes
from wtal.settings.config import RunConfig
from wtal.training.losses import DistillLoss, step_loss
from wtal.training.pseudo_labels import PseudoLabels
from wtal.training.video_losses import AttentionLoss


def add_gradients(
    branches: Branches,
    student: str,
    batch: Batch,
    pseudo_labels: PseudoLabels | None,
    config: RunConfig,
    device: Device,
    processes: Processes,
    network: int = 0,
) -> dict[str, float]:
    """Compute the loss of this process's videos and add its gradients to those of one network of the student.

    The loss is the mean over all videos of the batch, in all processes. Every video's gradient is divided by
    ``batch.videos``. So the sum over parts and processes equals, up to rounding, the gradient of the undivided batch.

    Args:
        branches: the branches of the run.
        student: the name of the branch that is trained; it is in training mode.
        batch: this process's share of the batch, on the CPU. ``config.batch.micro`` videos at a time go to the device.
        pseudo_labels: the pseudo-labels; None: train with video labels only.
        config: the settings of the batch and the loss.
        device: the device to compute on.
        processes: the processes that share the batch.
        network: which network of the student.

    Returns:
        ``loss`` and its terms, averaged over all videos of the batch. Every process gets the same values.
    """
    own = not branches.reads_clip(student)  # only CBP has attention and an embedding
    names = [
        "total",
        "video",
        *(field.name for field in fields(AttentionLoss) if own and config.cbp.attention),
        *(["contrast"] if own and config.loss.contrast else []),
        *([] if pseudo_labels is None else DistillLoss.names(is_softmax(branches, student, config))),
    ]
    means = torch.zeros(len(names), dtype=torch.float64)
    for part in batch.parts(config.batch.micro):
        share = len(part.lengths) / part.videos
        terms = _terms(branches, student, network, part, pseudo_labels, config, device)
        (terms["total"].mean() * share).backward()
        means += torch.stack([terms[name].detach().mean() for name in names]).cpu().double() * share
    total, *rest = processes.add(means.tolist())
    return {"loss": total, **dict(zip(names[1:], rest, strict=True))}


def _terms(
    branches: Branches,
    student: str,
    network: int,
    part: Batch,
    pseudo_labels: PseudoLabels | None,
    config: RunConfig,
    device: Device,
) -> dict[str, Tensor]:
    """The loss of one network of the student and its terms, one value per video, ``[B]`` each."""
    here = part.to(device.name)
    with device.autocast():
        outputs = branches.outputs(student, here, config.loss.contrast > 0, network)
    outputs = replace(outputs, logits=outputs.logits.float())
    target = weights = None
    if pseudo_labels is not None:
        cropped = pseudo_labels.crops(part, outputs.logits.shape[1])
        target, weights = (None if tensor is None else tensor.to(device.name) for tensor in cropped)
    softmax = is_softmax(branches, student, config)
    return step_loss(outputs, here.lengths, here.labels, config.loss, target, weights, softmax)
