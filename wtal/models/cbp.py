"""The classification-based branch (CBP): I3D features -> Transformer pyramid -> convolutional decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.blocks import TemporalConv, TransformerBlock, pool_pairs, upsample_pairs
from wtal.models.masks import at_least_float32
from wtal.models.packing import Packing, packings
from wtal.settings.config import CBPConfig


class CBP(nn.Module):
    """Frame-level action logits from I3D features (supplement of Ju et al., CVPR 2023).

    Features are standardised inside, so that a checkpoint carries the statistics it was trained with.

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
            TransformerBlock(dim, config.heads, config.mlp_ratio, config.dropout, config.window)
            for _ in range(config.levels)
        )
        self.norm = nn.LayerNorm(dim)
        self.decoder = nn.ModuleList([TemporalConv(dim, dim, 3), TemporalConv(dim, dim, 3)])
        self.output = TemporalConv(dim, num_classes, 1)
        nn.init.constant_(self.output.bias, config.output_bias)

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
        if i3d.ndim != 3 or i3d.shape[2] != self.input_dim:
            raise ValueError(f"i3d has shape {tuple(i3d.shape)}; expected [B, T, {self.input_dim}]")
        levels = packings(i3d, lengths, len(self.encoder), gap=True)
        finest = levels[0]
        # In place on one new tensor: a batch of 64 x 1000 x 2048 is half a gigabyte.
        x = at_least_float32(finest.pack(i3d)).sub_(self.input_mean).div_(self.input_std).masked_fill_(~finest.mask, 0)
        x = self.embedding(self.input_dropout(x), finest.mask)
        x = self.norm(self._pyramid(x, levels)).masked_fill(~finest.mask, 0)
        for layer in self.decoder:
            x = torch.relu(layer(x, finest.mask))
        return finest.unpack(self.output(x, finest.mask), i3d.shape[1])

    def _pyramid(self, x: Tensor, levels: Sequence[Packing]) -> Tensor:
        """``[R, dim]``: the sum of the levels, each a block on the one below at half its resolution."""
        outputs: list[Tensor] = []
        for block, here, finer in zip(self.encoder, levels, [None, *levels], strict=False):
            if finer is not None:
                x = pool_pairs(x, finer.mask, here.mask)
            x = block(x, here)
            outputs.append(x)
        total = outputs.pop()
        for coarse in reversed(levels[1:]):
            total = outputs.pop() + upsample_pairs(total, coarse.mask)
        return total
