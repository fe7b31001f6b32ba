"""Converts pseudo-labels to compact tensors for a checkpoint, and back without loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def pack_targets(targets: Sequence[Tensor]) -> dict[str, Tensor]:
    """Pack the pseudo-labels of all training videos into three tensors, without the columns of zeros (absent classes).

    Args:
        targets: ``[T, C]`` for each of N videos, one dtype.

    Returns:
        ``lengths`` int64 ``[N]``, ``columns`` bool ``[N, C]``, true for the columns that are not all zero; and
        ``values``, these columns one after another.
    """
    columns = [(target != 0).any(0) for target in targets]
    kept = [target.T[column].flatten() for target, column in zip(targets, columns, strict=True)]
    lengths = torch.tensor([len(target) for target in targets])
    return {"lengths": lengths, "columns": torch.stack(columns), "values": torch.cat(kept)}


def unpack_targets(packed: Mapping[str, Tensor]) -> list[Tensor]:
    """The targets that :func:`pack_targets` packed."""
    lengths, columns, values = packed["lengths"].tolist(), packed["columns"], packed["values"]
    counts = columns.sum(1).tolist()
    parts = values.split([length * count for length, count in zip(lengths, counts, strict=True)])
    targets = []
    for part, column, count, length in zip(parts, columns, counts, lengths, strict=True):
        target = values.new_zeros(length, columns.shape[1])
        target[:, column] = part.view(count, length).T
        targets.append(target)
    return targets
