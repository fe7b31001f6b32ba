"""Both branches on padded batches ``[B, T, D]``, as one writes them in plain PyTorch; with the weights of wtal's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.models import CBP, VLP, TransformerBlock

Attention = Callable[[Tensor, Tensor, int | None], Tensor]
"""``[B, T, 3, H, D]``, lengths and window to ``[B, T, H, D]``, as ``temporal_attention_packed``."""


class Padded(nn.Module):
    """A branch of wtal on padded batches; forward as the branch's own.

    Args:
        branch: whose parameters are used.
        attention: of all blocks.
    """

    def __init__(self, branch: CBP | VLP, attention: Attention) -> None:
        super().__init__()
        self.branch = branch
        self.attention = attention

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Logits ``[B, T, C]``, zeros beyond each length."""
        mask = torch.arange(x.shape[1], device=x.device) < lengths[:, None]  # [B, T]
        x = x.masked_fill(~mask[..., None], 0)
        logits = self.cbp(self.branch, x, mask) if isinstance(self.branch, CBP) else self.vlp(self.branch, x, mask)
        return logits.masked_fill(~mask[..., None], 0)

    def block(self, block: TransformerBlock, x: Tensor, mask: Tensor) -> Tensor:
        """Attention and MLP with residuals."""
        qkv = block.qkv(block.attention_norm(x)).unflatten(2, (3, block.heads, -1))
        x = x + block.dropout(block.projection(self.attention(qkv, mask.sum(1), block.window).flatten(2)))
        return x + block.dropout(block.mlp_out(F.gelu(block.mlp_in(block.mlp_norm(x)))))

    def vlp(self, vlp: VLP, x: Tensor, mask: Tensor) -> Tensor:
        """Cosines with the text, shifted and scaled."""
        x = F.normalize(x, dim=-1) * math.sqrt(vlp.feature_dim)
        for block in vlp.blocks:
            x = self.block(block, x, mask)
        with torch.autocast(x.device.type, enabled=False):
            cosine = F.normalize(x.float(), dim=-1) @ vlp.text().T
        return (cosine - vlp.bias) / vlp.config.temperature

    def cbp(self, cbp: CBP, x: Tensor, mask: Tensor) -> Tensor:
        """Embedding, pyramid, decoder."""

        def conv(layer: nn.Conv1d, x: Tensor) -> Tensor:
            out = F.conv1d(x.transpose(1, 2), layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)
            return out.transpose(1, 2).masked_fill(~mask[..., None], 0)

        x = ((x - cbp.input_mean) / cbp.input_std).masked_fill(~mask[..., None], 0)
        x = conv(cbp.embedding, cbp.input_dropout(x))
        levels, here = [], mask
        for stride, block in enumerate(cbp.encoder):
            if stride:
                odd = x.shape[1] % 2
                pairs = F.pad(x.masked_fill(~here[..., None], 0), (0, 0, 0, odd)).unflatten(1, (-1, 2))
                count = F.pad(here, (0, odd)).unflatten(1, (-1, 2)).sum(2)
                x, here = pairs.sum(2) / count.clamp(min=1)[..., None], count > 0
            x = self.block(block, x, here)
            levels.append((x, here))
        total, coarse = levels.pop()
        for x, here in reversed(levels):
            # linear interpolation at the pairs' own ends: the next valid cell, or the last one again
            last = F.pad(coarse, (0, 1))[:, 1:, None]
            after = torch.where(last, torch.cat([total[:, 1:], total[:, -1:]], 1), total)
            before = torch.cat([total[:, :1], total[:, :-1]], 1)
            up = torch.stack([0.75 * total + 0.25 * before, 0.75 * total + 0.25 * after], 2).flatten(1, 2)
            total, coarse = x + up[:, : x.shape[1]], here
        x = cbp.norm(total).masked_fill(~mask[..., None], 0)
        for layer in cbp.decoder:
            x = torch.relu(conv(layer, x))
        return conv(cbp.output, x)
