"""The classification-based branch (CBP): I3D features -> Transformer pyramid -> convolutional decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.blocks import TemporalConv, TransformerBlock, pool_pairs, residual_scale, upsample_pairs
from wtal.models.masks import at_least_float32
from wtal.models.packing import Packing, packings
from wtal.settings.config import CBPConfig


@dataclass(frozen=True)
class FrameOutputs:
    """What a branch says of every snippet; zeros beyond each length.

    Attributes:
        logits: of the classes, ``[B, T, C]``.
        attention: logits ``[B, T]`` of the foreground attention, None of a branch without.
        embedding: what the last layer reads, before its dropout, ``[B, T, D]``; None where nobody asked for it.
    """

    logits: Tensor
    attention: Tensor | None = None
    embedding: Tensor | None = None


class CBP(nn.Module):
    """Frame-level action logits from I3D features (supplement of Ju et al., CVPR 2023).

    Features are standardised inside, so that a checkpoint carries the statistics it was trained with.

    With ``residual_init`` near 0 it begins as one convolution, on which encoder and decoder then build: every layer
    after the embedding adds to what it is given, by a learned factor, and coarser levels of the pyramid add likewise
    to finer ones. Trained from few videos with their labels alone, a branch that begins as a deep network localises
    worse than the convolution (docs/real.md).

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
        # Its own LayerNorm would undo that the branch begins as a convolution.
        self.norm = nn.Identity() if self.additive else nn.LayerNorm(dim)
        self.level_scales = nn.ModuleList(residual_scale(dim, config.residual_init) for _ in range(config.levels - 1))
        self.decoder = nn.ModuleList([TemporalConv(dim, dim, 3), TemporalConv(dim, dim, 3)])
        self.decoder_scales = nn.ModuleList(residual_scale(dim, config.residual_init) for _ in self.decoder)
        self.output_dropout = nn.Dropout(config.output_dropout)
        self.output = TemporalConv(dim, num_classes, 1)
        nn.init.constant_(self.output.bias, config.output_bias)
        self.attention = TemporalConv(dim, 1, 1) if config.attention else None

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Standardises from now on with the training snippets' mean and deviation, each ``[input_dim]``.

        A dimension that does not vary is only centred.
        """
        for name, value in (("mean", mean), ("std", std)):
            if value.shape != self.input_mean.shape or not bool(torch.isfinite(value).all()):
                raise ValueError(f"{name} has shape {tuple(value.shape)}; expected finite values [{self.input_dim}]")
        self.input_mean.copy_(mean)
        self.input_std.copy_(torch.where(std > 1e-6, std, torch.ones_like(std)))

    @property
    def stride(self) -> int:
        """Snippets of the coarsest level's cells: a part of a video that begins at a multiple is pooled alike."""
        return 2 ** (self.config.levels - 1)

    @property
    def reach(self) -> int | None:
        """How many snippets to each side a logit can depend on at most; None: all, there is no attention window."""
        if self.config.window is None:
            return None
        # Up the pyramid each level sees a window of its own cells; down again, linear upsampling sees one cell more.
        strides = [2**level for level in range(self.config.levels)]
        up = self.config.window * sum(strides)
        down = 2 * sum(strides[1:])
        return up + down + 1 + len(self.decoder)  # the convolutions: embedding and decoder, one snippet each

    def forward(self, i3d: Tensor, lengths: Tensor) -> Tensor:
        """Logits of every snippet and class.

        Args:
            i3d: ``[B, T, input_dim]`` floating point; anything, NaN too, beyond each length.
            lengths: ``[B]`` int64 on the same device.

        Returns:
            ``[B, T, C]``, zeros beyond each length; sigmoid makes probabilities of them.

        Raises:
            ValueError: a shape does not fit.
        """
        return self.outputs(i3d, lengths).logits

    def outputs(self, i3d: Tensor, lengths: Tensor, embedding: bool = False) -> FrameOutputs:
        """As :meth:`forward`, and what the losses read beside the logits; ``embedding`` if asked for."""
        if i3d.ndim != 3 or i3d.shape[2] != self.input_dim:
            raise ValueError(f"i3d has shape {tuple(i3d.shape)}; expected [B, T, {self.input_dim}]")
        levels = packings(i3d, lengths, len(self.encoder), gap=True)
        finest = levels[0]
        # In place on one new tensor: a batch of 64 x 1000 x 2048 is half a gigabyte.
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
        """``[R, dim]``: the sum of the levels, each a block on the one below at half its resolution."""
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
