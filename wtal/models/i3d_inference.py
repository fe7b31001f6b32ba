"""I3D for inference: the layers of :mod:`wtal.models.i3d`, computed in a faster way.

With the plain layers on a CPU, one snippet on one thread spends a third of its time in pooling, because ``max_pool3d``
also finds the position of each maximum, and torch computes most convolutions of a single snippet without oneDNN.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.models.i3d import I3D, MaxPool, Unit3D, pad_same, same_padding

ONEDNN_TYPES = (torch.float32, torch.bfloat16)


class FoldedUnit(nn.Module):
    """The same function as a :class:`~wtal.models.i3d.Unit3D` whose batch normalisation is part of its convolution.

    Args:
        unit: in evaluation mode. Its convolution is taken over and gets the new weights, which are computed in float64
            and rounded once.
    """

    def __init__(self, unit: Unit3D) -> None:
        super().__init__()
        bn = unit.bn
        assert bn.running_mean is not None
        assert bn.running_var is not None
        self.conv3d = conv = unit.conv3d
        scale = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
        weight = conv.weight.double() * scale[:, None, None, None, None]
        bias = bn.bias.double() - bn.running_mean.double() * scale
        dtype = conv.weight.dtype
        conv.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
        conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, C', T', H', W']``."""
        conv = self.conv3d
        x, padding = pad_same(x, conv.kernel_size, conv.stride)
        if x.device.type == "cpu" and conv.weight.dtype in ONEDNN_TYPES and torch.backends.mkldnn.is_available():
            # F.conv3d would decide by the size of the input and take oneDNN for 4 of the 57 convolutions.
            x = torch.mkldnn_convolution(
                x.to(conv.weight.dtype), conv.weight, conv.bias, padding, conv.stride, conv.dilation, 1
            )
        else:
            x = F.conv3d(x, conv.weight, conv.bias, conv.stride, padding)
        return F.relu(x, inplace=True)


class AxisMaxPool(nn.Module):
    """The same values as a :class:`~wtal.models.i3d.MaxPool`; on a CPU, maxima along one axis after the other.

    Args:
        pool: the layer. None of its windows lies in the padding alone, so padding can be left out.
    """

    def __init__(self, pool: MaxPool) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, C, T', H', W']``."""
        if x.device.type != "cpu":
            return self.pool(x)
        kernel, stride = self.pool.kernel, self.pool.stride
        before = [first for first, _ in same_padding(x.shape[2:], kernel, stride)]
        for axis in range(3):
            x = _maximum_along(x, 2 + axis, kernel[axis], stride[axis], before[axis])
        return x


def _maximum_along(x: Tensor, axis: int, kernel: int, stride: int, before: int) -> Tensor:
    """The maximum over windows along one axis. Window i has the entries i * stride - before and the next ones."""
    size = x.shape[axis]
    windows = -(-size // stride)

    def entries(tap: int, first: int, last: int) -> Tensor:
        """Entry ``tap`` of the windows first .. last - 1."""
        start = first * stride - before + tap
        return x.narrow(axis, start, (last - first - 1) * stride + 1)[
            (slice(None),) * axis + (slice(None, None, stride),)
        ]

    if kernel == 1:
        return entries(0, 0, windows) if stride > 1 else x
    highest = entries(before, 0, windows).clone(memory_format=torch.preserve_format)  # is inside every window
    for tap in (tap for tap in range(kernel) if tap != before):
        first = max(0, -((tap - before) // stride))
        last = min(windows, (size - 1 + before - tap) // stride + 1)
        if first < last:
            part = highest.narrow(axis, first, last - first)
            torch.maximum(part, entries(tap, first, last), out=part)
    return highest


@torch.no_grad()
def for_inference(model: I3D) -> I3D:
    """Replaces the layers of a model by faster ones, and lays out its memory channels-last.

    Args:
        model: a model in evaluation mode, changed in place. It loses the parameter names of the checkpoints.

    Returns:
        ``model``. Its features differ only by rounding.
    """
    for parent in list(model.modules()):  # a list, because the layers change
        for name, child in list(parent.named_children()):
            if isinstance(child, Unit3D):
                setattr(parent, name, FoldedUnit(child))
            elif isinstance(child, MaxPool):
                setattr(parent, name, AxisMaxPool(child))
    return model.to(memory_format=torch.channels_last_3d)
