"""What a user would pick instead of wtal's temporal attention, each on the same problem.

A form is a class: the constructor gets the problem and prepares what lasts (layouts, masks unless ``fresh``), a call
gives out ``[B, H, T, D]`` or, where padding has no place in its layout, something that ``dense`` turns into that.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor

from wtal.ops import temporal_attention, temporal_attention_packed

THUMOS14_LENGTHS = [
    *(28, 43, 45, 53, 63, 71, 74, 84, 99, 104, 109, 112, 118, 130, 136, 145, 153, 156, 160, 170, 178, 181, 186),
    *(188, 196, 200, 203, 216, 225, 233, 239, 244, 256, 264, 272, 276, 280, 286, 288, 300, 309, 319, 324, 327, 331),
    *(339, 347, 354, 363, 367, 373, 386, 402, 445, 475, 537, 570, 643, 743, 850, 1026, 1303, 1410, 2001),
]
"""64 quantiles of the snippets (16 frames at 25 fps) in THUMOS14's 212 annotated test videos."""


class Unavailable(Exception):
    """The form does not exist on this machine; says why."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """Packed projections of ragged videos, and what is asked of them."""

    qkv: Tensor  # [B, T, 3, H, D]
    lengths: Tensor
    window: int | None

    @functools.cached_property
    def valid(self) -> Tensor:
        """Which snippets are no padding: ``[B, T]``."""
        return torch.arange(self.qkv.shape[1], device=self.qkv.device) < self.lengths[:, None]

    def parts(self) -> list[Tensor]:
        """Leaves q, k, v ``[B, H, T, D]``, contiguous: what the other forms like best."""
        return [x.contiguous().requires_grad_() for x in self.qkv.permute(2, 0, 3, 1, 4)]

    def pairs(self) -> int:
        """How many (query, key) pairs see each other, of one head."""
        total = 0
        for length in self.lengths.tolist():
            reach = length if self.window is None else min(self.window, length)
            total += length + 2 * sum(length - apart for apart in range(1, reach + 1) if apart < length)
        return total


class Form:
    """Holds the leaves; subclasses compute."""

    forward_only = False
    full_only = False
    windowed_only = False

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        self.problem = problem
        self.fresh = fresh
        self.leaves = problem.parts()

    def dense(self, out: Tensor) -> Tensor:
        """Out ``[B, H, T, D]`` with zeros beyond each length."""
        return out.masked_fill(~self.problem.valid[:, None, :, None], 0)

    def gradients(self, grads: list[Tensor]) -> list[Tensor]:
        """The gradients for q, k, v ``[B, H, T, D]``."""
        return grads


class Wtal(Form):
    def __call__(self) -> Tensor:
        return temporal_attention(*self.leaves, self.problem.lengths, self.problem.window)


class WtalPacked(Form):
    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        super().__init__(problem, fresh)
        self.leaves = [problem.qkv.clone().requires_grad_()]

    def __call__(self) -> Tensor:
        return temporal_attention_packed(*self.leaves, self.problem.lengths, self.problem.window)

    def dense(self, out: Tensor) -> Tensor:
        return out.transpose(1, 2)

    def gradients(self, grads: list[Tensor]) -> list[Tensor]:
        return list(grads[0].permute(2, 0, 3, 1, 4))


class Masked(Form):
    """SDPA with a boolean mask, made once, or anew in each call (``fresh``) as changing lengths demand."""

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        super().__init__(problem, fresh)
        self.mask = None if fresh else self.make_mask()

    def make_mask(self) -> Tensor:
        total, window = self.problem.qkv.shape[1], self.problem.window
        index = torch.arange(total, device=self.problem.lengths.device)
        mask = (index < self.problem.lengths[:, None])[:, None, None]  # [B, 1, 1, T]
        if window is not None:
            apart = (index[:, None] - index).abs()
            mask = (mask & (apart <= window)) | (apart == 0)  # the diagonal: a row that sees nothing gives NaN
        return mask.expand(-1, 1, total, total)

    def __call__(self) -> Tensor:
        return F.scaled_dot_product_attention(*self.leaves, attn_mask=self.make_mask() if self.fresh else self.mask)


class Sliced(Form):
    """SDPA on each video alone, without a mask."""

    full_only = True

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        super().__init__(problem, fresh)
        self.lengths = problem.lengths.tolist()

    def __call__(self) -> Tensor:
        total = self.problem.qkv.shape[1]
        out = []
        for b, length in enumerate(self.lengths):
            video = (x[b : b + 1, :, :length] for x in self.leaves)
            out.append(F.pad(F.scaled_dot_product_attention(*video), (0, 0, 0, total - length)))
        return torch.cat(out)


class Jagged(Form):
    """SDPA on jagged nested tensors, whose values lie without padding from the start."""

    full_only = True

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        super().__init__(problem, fresh)
        self.leaves = [x[problem.valid].contiguous().requires_grad_() for x in problem.qkv.unbind(2)]  # [N, H, D]
        self.offsets = F.pad(problem.lengths.cumsum(0), (1, 0))
        self.longest = int(problem.lengths.max())

    def __call__(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nested tensors are a prototype
            return self.attend()

    def attend(self) -> Tensor:
        parts = (
            torch.nested.nested_tensor_from_jagged(x, self.offsets, max_seqlen=self.longest, min_seqlen=1)
            for x in self.leaves
        )
        return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in parts)).transpose(1, 2).values()

    def spread(self, values: Tensor) -> Tensor:
        batch, total, _, heads, dim = self.problem.qkv.shape
        dense = values.new_zeros(batch, total, heads, dim)
        dense[self.problem.valid] = values
        return dense.transpose(1, 2)

    def dense(self, out: Tensor) -> Tensor:
        return self.spread(out)

    def gradients(self, grads: list[Tensor]) -> list[Tensor]:
        return [self.spread(grad) for grad in grads]


class Varlen(Jagged):
    """``torch.nn.attention.varlen.varlen_attn``, with its window where there is one."""

    full_only = False

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        if problem.qkv.device.type != "cuda":
            raise Unavailable("varlen_attn: torch has no CPU kernel for it")
        super().__init__(problem, fresh)

    def __call__(self) -> Tensor:
        from torch.nn.attention.varlen import varlen_attn

        window = self.problem.window
        size = (-1, -1) if window is None else (window, window)
        cu = self.offsets.int()
        return varlen_attn(*self.leaves, cu, cu, self.longest, self.longest, window_size=size)


@functools.cache
def _compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


class Flex(Form):
    """FlexAttention, compiled, with the same mask."""

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        super().__init__(problem, fresh)
        if problem.qkv.device.type == "cpu":
            self.forward_only = True  # its backward is not implemented there
            self.leaves = [x.detach() for x in self.leaves]
        self.mask = None if fresh else self.make_mask()

    def make_mask(self):
        from torch.nn.attention.flex_attention import create_block_mask

        lengths, window = self.problem.lengths, self.problem.window
        batch, total = self.problem.qkv.shape[:2]

        def inside(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            seen = j < lengths[b]
            return seen if window is None else seen & ((i - j).abs() <= window)

        return create_block_mask(inside, batch, None, total, total, device=lengths.device)

    def __call__(self) -> Tensor:
        return _compiled_flex()(*self.leaves, block_mask=self.make_mask() if self.fresh else self.mask)


class Chunked(Form):
    """Plain PyTorch for a window: blocks of ``size`` queries, each with the keys of its block and around it."""

    windowed_only = True
    size = 64
    fused = False  # SDPA on the blocks, or matmul, softmax, matmul

    def blocks(self, x: Tensor) -> Tensor:
        """``[B, H, T, D]`` -> ``[B, H, N, size + 2 window, D]``, a view of one padded copy."""
        total, window = x.shape[2], self.problem.window
        padded = F.pad(x, (0, 0, window, window + -total % self.size))
        return padded.unfold(2, self.size + 2 * window, self.size).transpose(3, 4)

    def make_mask(self) -> Tensor:
        total, window, size = self.problem.qkv.shape[1], self.problem.window, self.size
        blocks = (total + size - 1) // size
        device = self.problem.lengths.device
        i, j = torch.arange(size, device=device)[:, None], torch.arange(size + 2 * window, device=device) - window
        start = torch.arange(blocks, device=device)[:, None, None] * size
        near = (i - j).abs() <= window
        inside = (start + j >= 0) & (start + j < self.problem.lengths[:, None, None, None])
        return ((near & inside) | (i == j))[:, None]  # [B, 1, N, size, size + 2 window]

    def __init__(self, problem: Problem, fresh: bool = False) -> None:
        super().__init__(problem, fresh)
        self.mask = self.make_mask()
        self.bias = torch.zeros_like(self.mask, dtype=problem.qkv.dtype).masked_fill(~self.mask, -torch.inf)

    def __call__(self) -> Tensor:
        q, k, v = self.leaves
        total = q.shape[2]
        k, v = self.blocks(k), self.blocks(v)
        q = F.pad(q, (0, 0, 0, -total % self.size)).unflatten(2, (-1, self.size))
        if self.fused:
            flat = (x.flatten(1, 2) for x in (q, k, v))  # [B, H * N, size, D]
            mask = self.mask.expand(-1, q.shape[1], -1, -1, -1).flatten(1, 2)
            out = F.scaled_dot_product_attention(*flat, attn_mask=mask).unflatten(1, q.shape[1:3])
        else:
            out = ((q * q.shape[-1] ** -0.5) @ k.mT + self.bias).softmax(-1) @ v
        return out.flatten(2, 3)[:, :, :total]


def chunked(size: int, fused: bool) -> type[Form]:
    return type(f"Chunked{size}{fused}", (Chunked,), {"size": size, "fused": fused})


FORMS: dict[str, type[Form]] = {
    "wtal": Wtal,
    "wtal, packed": WtalPacked,
    "SDPA, mask": Masked,
    "SDPA, sliced a video": Sliced,
    "SDPA, jagged": Jagged,
    "varlen_attn": Varlen,
    "FlexAttention, compiled": Flex,
    "chunks of 32": chunked(32, False),
    "chunks of 64": chunked(64, False),
    "chunks of 32, SDPA": chunked(32, True),
    "chunks of 64, SDPA": chunked(64, True),
}
