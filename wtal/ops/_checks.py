"""Common parts of the post-processing ops: argument checks, and the registration of an op without a gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wtal.ops import _library  # noqa: F401  (defines the ops)

_registrations = torch.library.Library("wtal", "IMPL")


def check_shape(
    name: str, tensor: Tensor, form: str, sizes: Sequence[int | None], dtype: torch.dtype | None = None
) -> None:
    """Raise ValueError unless ``tensor`` has these sizes (``None``: any) and, if given, this dtype."""
    fits = tensor.dim() == len(sizes) and all(
        size is None or size == actual for size, actual in zip(sizes, tensor.shape, strict=True)
    )
    if not fits:
        known = f" = {list(sizes)}" if None not in sizes else ""
        raise ValueError(f"{name} has shape {list(tensor.shape)}, expected {form}{known}")
    if dtype is not None and tensor.dtype != dtype:
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected {dtype}")


def check_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """Raise ValueError unless both are on one device."""
    if tensor.device != other.device:
        raise ValueError(f"{name} is on {tensor.device}, {other_name} on {other.device}: expected one device")


def no_gradient(op: str) -> None:
    """Make ``torch.ops.wtal.<op>`` ignore autograd: its outputs have no gradient, even if its inputs need one."""
    _registrations.impl(op, torch.library.fallthrough_kernel, "Autograd")
