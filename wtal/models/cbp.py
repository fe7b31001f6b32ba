"""The classification-based branch (CBP): I3D features -> Transformer pyramid -> convolutional decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.blocks import TemporalConv, TransformerBlock, pool_pairs, residual_scale, upsample_pairs
from wtal.models.masks import at_least_float32
from wtal.models.packing import Packing, packings
from wtal.settings.config import CBPConfig


@dataclass(frozen=True)
class FrameOutputs:
    """The outputs of a branch for every snippet; zeros beyond each length.

    Attributes:
        logits: class logits ``[B, T, C]``.
        attention: logits ``[B, T]`` of the foreground attention, None if the branch has no attention.
        embedding: the input of the last layer before its dropout, ``[B, T, D]``; None if it was not requested.
    """

    logits: Tensor
    attention: Tensor | None = None
    embedding: Tensor | None = None


class CBP(nn.Module):
    """Frame-level action logits from I3D features (supplement of Ju et al., CVPR 2023).

    The model standardises the features itself, so that a checkpoint contains the statistics of its training.

    With ``residual_init`` near 0 the model starts as one convolution. Every layer after the embedding adds to its input
    with a learned factor, and each coarser level of the pyramid adds to the finer level in the same way. Trained on few
    videos with video labels alone, a branch that starts as a deep network localises worse than the convolution
    (docs/real.md).

    Args:
        input_dim: width of the I3D features, 2048 for RGB and flow side by side.
        num_classes: C.
        config: sizes; ``levels`` Transformer blocks work at temporal strides 1, 2, 4, ...
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, input_dim: int, num_classes: int, config: CBPConfig) -> None:
        super().__init__()
        if config.levels < 1:
            raise WtalError(f"cbp.levels is {config.levels}; expected at least 1")
        self.input_dim = input_dim
        self.num_classes = num_classes
        self.config = config
        dim = config.dim
        self.register_buffer("input_mean", torch.zeros(input_dim))
        self.register_buffer("input_std", torch.ones(input_dim))
        self.input_dropout = nn.Dropout(config.input_dropout, inplace=True)
        self.embedding = TemporalConv(input_dim, dim, 3)
        self.encoder = nn.ModuleList(
            TransformerBlock(
                dim, config.heads, config.mlp_ratio, config.dropout, config.window, residual_init=config.residual_init
            )
            for _ in range(config.levels)
        )
        self.additive = config.residual_init is not None
        # A LayerNorm here would prevent the branch from starting as a convolution.
        self.norm = nn.Identity() if self.additive else nn.LayerNorm(dim)
        self.level_scales = nn.ModuleList(residual_scale(dim, config.residual_init) for _ in range(config.levels - 1))
        self.decoder = nn.ModuleList([TemporalConv(dim, dim, 3), TemporalConv(dim, dim, 3)])
        self.decoder_scales = nn.ModuleList(residual_scale(dim, config.residual_init) for _ in self.decoder)
        self.output_dropout = nn.Dropout(config.output_dropout)
        self.output = TemporalConv(dim, num_classes, 1)
        nn.init.constant_(self.output.bias, config.output_bias)
        self.attention = TemporalConv(dim, 1, 1) if config.attention else None

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Sets the mean and standard deviation of the training snippets, each ``[input_dim]``, for standardisation.

        A dimension without variation is only centred.
        """
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != self.input_mean.shape or not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} has shape {tuple(value.shape)}; expected finite values [{self.input_dim}]")
        self.input_mean.copy_(mean)
        self.input_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    @property
    def stride(self) -> int:
        """Snippets per cell of the coarsest level: a part of a video that starts at a multiple has the same cells."""
        return 2 ** (self.config.levels - 1)

    @property
    def reach(self) -> int | None:
        """The largest distance in snippets at which a logit can depend on the input; None: no limit (no window)."""
        if self.config.window is None:
            return None
        # On the way up each level sees a window of its own cells; on the way down upsampling sees one more cell.
        strides = [2**level for level in range(self.config.levels)]
        up = self.config.window * sum(strides)
        down = 2 * sum(strides[1:])
        return up + down + 1 + len(self.decoder)  # the convolutions: embedding and decoder, one snippet each

    def forward(self, i3d: Tensor, lengths: Tensor) -> Tensor:
        """Logits of every snippet and class.

        Args:
            i3d: ``[B, T, input_dim]`` floating point; values beyond each length are ignored, even NaN.
            lengths: ``[B]`` int64 on the same device.

        Returns:
            ``[B, T, C]``, zeros beyond each length; sigmoid converts them to probabilities.

        Raises:
            ValueError: a shape does not fit.
        """
        return self.outputs(i3d, lengths).logits

    def outputs(self, i3d: Tensor, lengths: Tensor, embedding: bool = False) -> FrameOutputs:
        """Like :meth:`forward`, with the other outputs that the losses need; ``embedding`` only on request."""
        if i3d.ndim != 3 or i3d.shape[2] != self.input_dim:
            raise ValueError(f"i3d has shape {tuple(i3d.shape)}; expected [B, T, {self.input_dim}]")
        levels = packings(i3d, lengths, len(self.encoder), gap=True)
        finest = levels[0]
        # In place on one new tensor, because a batch of 64 x 1000 x 2048 takes half a gigabyte.
        x = at_least_float32(finest.pack(i3d)).sub_(self.input_mean).div_(self.input_std).masked_fill_(~finest.mask, 0)
        x = self.embedding(self.input_dropout(x), finest.mask)
        if self.additive:
            x = torch.relu(x)
        x = self.norm(self._pyramid(x, levels)).masked_fill(~finest.mask, 0)
        for layer, scale in zip(self.decoder, self.decoder_scales, strict=True):
            added = torch.relu(layer(x, finest.mask))
            x = x + scale(added) if self.additive else added
        decoded = x
        x = self.output_dropout(x)
        size = i3d.shape[1]
        return FrameOutputs(
            finest.unpack(self.output(x, finest.mask), size),
            None if self.attention is None else finest.unpack(self.attention(x, finest.mask), size)[..., 0],
            finest.unpack(decoded, size) if embedding else None,
        )

    def _pyramid(self, x: Tensor, levels: Sequence[Packing]) -> Tensor:
        """``[R, dim]``: the sum of the levels; each level is a block on the finer level at half its resolution."""
        outputs: list[Tensor] = []
        for block, here, finer in zip(self.encoder, levels, [None, *levels], strict=False):
            if finer is not None:
                x = pool_pairs(x, finer.mask, here.mask)
            x = block(x, here)
            outputs.append(x)
        total = outputs.pop()
        for coarse, scale in zip(reversed(levels[1:]), reversed(self.level_scales), strict=True):
            total = outputs.pop() + scale(upsample_pairs(total, coarse.mask))
        return total


class CBPEnsemble(nn.Module):
    """Several CBP networks as one branch, whose logits are the mean of theirs.

    Training treats each network by itself: its own batches, gradient and limit of the gradient's norm
    (:meth:`wtal.training.trainer.Trainer.step`). Networks from different weights make different errors, so their mean
    localises better than one of them (docs/real.md).

    Args:
        input_dim: as in :class:`CBP`.
        num_classes: C.
        config: ``networks`` is their number, the rest describes each of them.
    """

    def __init__(self, input_dim: int, num_classes: int, config: CBPConfig) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.num_classes = num_classes
        self.config = config
        self.networks = nn.ModuleList(CBP(input_dim, num_classes, config) for _ in range(config.networks))

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """As :meth:`CBP.set_statistics`, for all networks."""
        for network in self.networks:
            cast(CBP, network).set_statistics(mean, std)

    @property
    def stride(self) -> int:
        """As :attr:`CBP.stride`."""
        return cast(CBP, self.networks[0]).stride

    @property
    def reach(self) -> int | None:
        """As :attr:`CBP.reach`."""
        return cast(CBP, self.networks[0]).reach

    def forward(self, i3d: Tensor, lengths: Tensor) -> Tensor:
        """The mean of the networks' logits, see :meth:`CBP.forward`."""
        total = self.networks[0](i3d, lengths)
        for network in self.networks[1:]:
            total = total + network(i3d, lengths)
        return cast(Tensor, total / len(self.networks))


def build_cbp(input_dim: int, num_classes: int, config: CBPConfig) -> CBP | CBPEnsemble:
    """A CBP branch with new weights: one network, or ``config.networks`` of them."""
    return (CBP if config.networks == 1 else CBPEnsemble)(input_dim, num_classes, config)
