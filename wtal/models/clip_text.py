"""CLIP's frozen text encoder with learnable prompt vectors around the class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.blocks import at_least_float32


class PromptedCLIPText(nn.Module):
    """Text features from ``[start | before | class name | after | end]`` through CLIP's text encoder.

    Only the prompts, ``before [n, W]`` and ``after [m, W]``, are parameters of this module. The encoder is
    frozen and is not in ``parameters()`` or ``state_dict()``: a checkpoint has only the prompts, and the encoder
    comes from :func:`wtal.models.load_clip_text.load_clip`. But ``.to()`` moves the encoder too.

    CLIP's attention is causal and its text feature is the output at the end token. So the sequences are cut after
    the last end token of all classes, and each feature is read at its own end token. A longer context would not
    change the result.

    Args:
        clip_model: an open_clip model with CLIP's own kind of text Transformer. Its text encoder is used here,
            frozen and in evaluation mode.
        tokenizer: open_clip's tokenizer of that model.
        class_names: C names, written as in a sentence.
        before: prompt vectors before the name, 16 in the paper.
        after: prompt vectors after the name, 16 in the paper.
        init_std: standard deviation of the initial prompts, drawn from the global generator.

    Raises:
        WtalError: a name has no token or too many tokens for the context, or the model's text encoder does not
            support prompts.
    """

    frozen: Tensor
    slot: Tensor
    end: Tensor

    def __init__(
        self,
        clip_model: nn.Module,
        tokenizer: Any,
        class_names: Sequence[str],
        before: int = 16,
        after: int = 16,
        init_std: float = 0.01,
    ) -> None:
        super().__init__()
        tower = text_tower(clip_model)
        names = [tokenizer.encode(name) for name in class_names]
        room = int(tower.positional_embedding.shape[0]) - before - after - 2
        for name, tokens in zip(class_names, names, strict=True):
            if not 1 <= len(tokens) <= room:
                raise WtalError(
                    f"class {name!r} has {len(tokens)} CLIP tokens; expected 1 to {room}, which is what "
                    f"{before} + {after} prompt vectors, start and end leave of a context of "
                    f"{room + before + after + 2}"
                )
        width = tower.token_embedding.weight.shape[1]
        ends = [1 + before + len(tokens) + after for tokens in names]
        ids = torch.zeros(len(names), max(ends) + 1, dtype=torch.int64)  # [C, L]
        slot = torch.full_like(ids, -1)  # index of the prompt vector at this position, -1 for a token
        for row, tokens in enumerate(names):
            middle = 1 + before + len(tokens)
            ids[row, 0] = tokenizer.sot_token_id
            ids[row, 1 + before : middle] = torch.tensor(tokens)
            ids[row, ends[row]] = tokenizer.eot_token_id
            slot[row, 1 : 1 + before] = torch.arange(before)
            slot[row, middle : ends[row]] = torch.arange(before, before + after)

        self.num_classes = len(names)
        self.before = nn.Parameter(init_std * torch.randn(before, width))
        self.after = nn.Parameter(init_std * torch.randn(after, width))
        with torch.no_grad():
            table = tower.token_embedding.weight
            embedded = tower.token_embedding(ids.to(table.device)).float().cpu()  # [C, L, W]
        self.register_buffer("frozen", embedded, persistent=False)
        self.register_buffer("slot", slot, persistent=False)
        self.register_buffer("end", torch.tensor(ends), persistent=False)
        # In a tuple it is not a submodule, so parameters(), state_dict() and train() do not include it.
        self._encoder = (_Encoder(tower, ids.shape[1]).requires_grad_(False).eval(),)
        projection = tower.text_projection
        if isinstance(projection, nn.Linear):
            projection = projection.weight.T
        self.dim = int(width if projection is None else projection.shape[1])

    @property
    def encoder(self) -> nn.Module:
        """The frozen text encoder."""
        return self._encoder[0]

    def _apply(self, fn: Any, recurse: bool = True) -> PromptedCLIPText:
        self.encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self) -> Tensor:
        """Text features of all classes ``[C, D]`` float32, unit norm."""
        prompts = torch.cat([self.before, self.after])  # [n + m, W]
        if len(prompts):
            learned = F.embedding(self.slot.clamp(min=0), prompts)
            x = torch.where((self.slot >= 0)[..., None], learned, self.frozen)
        else:
            x = self.frozen
        features = self.encoder(x, self.end)
        with torch.autocast(x.device.type, enabled=False):
            return F.normalize(at_least_float32(features), dim=-1)


class _Encoder(nn.Module):
    """open_clip's ``encode_text`` after the token embedding: ``[C, L, W]`` to features ``[C, D]``."""

    def __init__(self, tower: Any, size: int) -> None:
        super().__init__()
        self.transformer: Any = tower.transformer
        self.ln_final: Any = tower.ln_final
        self.positional_embedding = nn.Parameter(tower.positional_embedding.detach()[:size].clone())
        self.text_projection: Any = tower.text_projection  # a Parameter, a Linear or None
        self.register_buffer("attn_mask", tower.attn_mask[:size, :size].clone(), persistent=False)

    def forward(self, x: Tensor, end: Tensor) -> Tensor:
        dtype = self.transformer.get_cast_dtype()
        x = x.to(dtype) + self.positional_embedding.to(dtype)
        x = self.transformer(x, attn_mask=self.attn_mask)
        x = self.ln_final(x[torch.arange(len(x), device=x.device), end])
        if isinstance(self.text_projection, nn.Parameter):
            return x @ self.text_projection
        return x if self.text_projection is None else self.text_projection(x)


def text_tower(clip_model: nn.Module) -> Any:
    """The part of an open_clip model that contains its text encoder.

    Raises:
        WtalError: the encoder is not a causal Transformer with its output at the end token, which the prompts need.
    """
    tower = getattr(clip_model, "text", clip_model)
    parts = ("token_embedding", "positional_embedding", "transformer", "ln_final", "text_projection")
    pooling = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    mask = getattr(tower, "attn_mask", None)
    if (
        not all(hasattr(tower, part) for part in parts)
        or mask is None
        or getattr(tower, "cls_emb", None) is not None
        or pooling not in ("argmax", "eos")
    ):
        raise WtalError(
            f"the text encoder of this CLIP model ({type(tower).__name__}, pooling {pooling!r}) takes no "
            "prompts; expected CLIP's own causal Transformer, as ViT-B-16-quickgelu has it (--clip-model)"
        )
    return tower
