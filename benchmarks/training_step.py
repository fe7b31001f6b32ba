"""One training step of the full-size branches: as wtal has them, or written in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import torch
import torch.nn.functional as F
from attention_forms import THUMOS14_LENGTHS
from padded_branches import Padded
from torch import Tensor, nn

from wtal.models import CBP, VLP, blocks
from wtal.models.fixed_text import PromptedTextFeatures
from wtal.ops import temporal_attention_packed
from wtal.settings.recipe import load_recipe
from wtal.training.losses import step_loss

I3D, CLIP, CLASSES = 2048, 512, 20
LENGTHS = [min(length, 1000) for length in THUMOS14_LENGTHS]
"""Of 64 videos, snippets: quantiles of THUMOS14's test set, cropped as training crops."""

Attention = Callable[[Tensor, Tensor | None, int | None], Tensor]


def plain(qkv: Tensor, lengths: Tensor | None = None, window: int | None = None) -> Tensor:
    """SDPA where all rows are of one length, as in the text branch."""
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2)


def masked(qkv: Tensor, lengths: Tensor | None, window: int | None) -> Tensor:
    """SDPA with a padding mask, made anew as lengths change with every batch."""
    if lengths is None:
        return plain(qkv)
    assert window is None
    mask = (torch.arange(qkv.shape[1], device=qkv.device) < lengths[:, None])[:, None, None]  # [B, 1, 1, T]
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), attn_mask=mask).transpose(1, 2)


def sliced(qkv: Tensor, lengths: Tensor | None, window: int | None) -> Tensor:
    """SDPA on each video alone."""
    if lengths is None:
        return plain(qkv)
    assert window is None
    videos = zip(qkv, lengths.tolist(), strict=True)
    return torch.cat([F.pad(plain(v[None, :n]), (0, 0, 0, 0, 0, qkv.shape[1] - n)) for v, n in videos])


SIDES: dict[str, tuple[bool, Attention]] = {
    "wtal": (False, temporal_attention_packed),
    "SDPA, mask": (True, masked),
    "SDPA, sliced a video": (True, sliced),
    "wtal's packed rows, SDPA sliced": (False, sliced),
}
"""Whether all layers work on padded batches, as one would write it, or on wtal's packed rows; and the attention."""


class Step:
    """A branch, its optimiser and one batch; a call is a step of training, of which the loss is returned.

    Args:
        branch: ``"cbp"`` for an F step, ``"vlp"`` for a B step.
        side: a key of :data:`SIDES`.
        lengths: snippets of the batch's videos.
        device: where.
        bf16: under autocast.
        compiled: the branch through ``torch.compile``.
    """

    def __init__(
        self, branch: str, side: str, lengths: list[int], device: str, bf16: bool = False, compiled: bool = False
    ) -> None:
        config = load_recipe("thumos14").config
        torch.manual_seed(0)
        text = PromptedTextFeatures(F.normalize(torch.randn(CLASSES, CLIP), dim=1), 16, 16, 0.01)
        model = CBP(I3D, CLASSES, config.cbp) if branch == "cbp" else VLP(text, CLIP, config.vlp)
        self.model: nn.Module = model.to(device).train()
        padded, self.attention = SIDES[side]
        network = Padded(model, self.attention) if padded else model
        self.run: Callable[[Tensor, Tensor], Tensor] = torch.compile(network) if compiled else network
        self.config, self.device, self.bf16 = config, device, bf16
        learned = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(learned, lr=config.optimizer.lr, fused=True)
        self.lengths = torch.tensor(lengths, device=device)
        size = (len(lengths), max(lengths))
        self.features = torch.randn(*size, I3D if branch == "cbp" else CLIP, device=device)
        self.labels = F.one_hot(torch.arange(len(lengths), device=device) % CLASSES, CLASSES).float()
        self.target = torch.randint(-1, 2, (*size, CLASSES), dtype=torch.int8, device=device)

    def __call__(self) -> float:
        with mock.patch.object(blocks, "temporal_attention_packed", self.attention):
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                logits = self.run(self.features, self.lengths).float()
            loss = step_loss(logits, self.lengths, self.labels, self.config.loss, self.target)["total"].mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
            self.optimizer.step()
        return loss.item()
