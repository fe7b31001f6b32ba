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
from wtal.models.cbp import FrameOutputs
from wtal.models.packing import Packing
from wtal.models.text_without_clip import PromptedTextFeatures
from wtal.ops import temporal_attention_packed, temporal_attention_rows
from wtal.settings.config import OptimizerConfig, RunConfig
from wtal.training.losses import step_loss

I3D, CLIP, CLASSES = 2048, 512, 20
LENGTHS = [min(length, 1000) for length in THUMOS14_LENGTHS]
"""Of 64 videos, snippets: quantiles of THUMOS14's test set, cropped as training crops."""


def plain(qkv: Tensor) -> Tensor:
    """SDPA where all rows are of one length."""
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4)).transpose(1, 2)


def masked(qkv: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """SDPA with a padding mask, made anew as lengths change with every batch."""
    assert window is None
    mask = (torch.arange(qkv.shape[1], device=qkv.device) < lengths[:, None])[:, None, None]  # [B, 1, 1, T]
    return F.scaled_dot_product_attention(*qkv.permute(2, 0, 3, 1, 4), attn_mask=mask).transpose(1, 2)


def sliced(qkv: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """SDPA on each video alone."""
    assert window is None
    videos = zip(qkv, lengths.tolist(), strict=True)
    return torch.cat([F.pad(plain(v[None, :n]), (0, 0, 0, 0, 0, qkv.shape[1] - n)) for v, n in videos])


def sliced_rows(qkv: Tensor, starts: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """The same on packed rows."""
    assert window is None
    out, end = [], 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        out += [qkv.new_zeros(start - end, *qkv.shape[2:]), plain(qkv[None, start : start + length])[0]]
        end = start + length
    return torch.cat([*out, qkv.new_zeros(len(qkv) - end, *qkv.shape[2:])])


def unpacked(qkv: Tensor, starts: Tensor, lengths: Tensor, window: int | None) -> Tensor:
    """wtal's attention on a padded batch, to which the rows go and from which they come back."""
    size = int(lengths.max())
    video = torch.repeat_interleave(lengths)
    snippet = torch.arange(len(video), device=qkv.device) - (lengths.cumsum(0) - lengths)[video]
    row = starts[video] + snippet
    packing = Packing(starts, lengths, video, snippet, row, row.new_empty(len(qkv), 1, dtype=torch.bool))
    return packing.pack(temporal_attention_packed(packing.unpack(qkv, size), lengths, window))


SIDES: dict[str, tuple[bool, Callable[..., Tensor]]] = {
    "wtal": (False, temporal_attention_rows),
    "wtal, attention padded": (False, unpacked),
    "SDPA, mask": (True, masked),
    "SDPA, sliced a video": (True, sliced),
    "wtal's packed rows, SDPA sliced": (False, sliced_rows),
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
        config = RunConfig(optimizer=OptimizerConfig(clip_norm=5.0))  # wider than any recipe's CBP
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
        with mock.patch.object(blocks, "temporal_attention_rows", self.attention):
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                logits = self.run(self.features, self.lengths).float()
            loss = step_loss(FrameOutputs(logits), self.lengths, self.labels, self.config.loss, self.target)[
                "total"
            ].mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.clip_norm)
            self.optimizer.step()
        return loss.item()
