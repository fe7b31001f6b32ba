"""Attention within what torch offers on a GPU: captured in a CUDA graph, and compiled for replay as one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from wtal.ops import temporal_attention, temporal_attention_rows

pytestmark = pytest.mark.gpu


def rows(dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Projections of two videos, and where they lie."""
    torch.manual_seed(seed)
    qkv = torch.randn(150, 3, 2, 32, device="cuda").to(dtype)
    return qkv, torch.tensor([0, 90], device="cuda"), torch.tensor([80, 60], device="cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_graph_of_forward_and_backward_follows_new_values(dtype: torch.dtype) -> None:
    """The captured launches read their inputs when they are replayed, lengths and starts among them."""
    qkv, starts, lengths = rows(dtype, 0)
    qkv.requires_grad_()
    grad = torch.randn(150, 2, 32, device="cuda").to(dtype)

    def run() -> tuple[Tensor, Tensor]:
        out = temporal_attention_rows(qkv, starts, lengths, 9)
        (gradient,) = torch.autograd.grad(out, qkv, grad)
        return out.detach(), gradient

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for seed, new_starts, new_lengths in ((1, [0, 90], [80, 60]), (2, [3, 100], [97, 1])):
        with torch.no_grad():
            qkv.copy_(rows(dtype, seed)[0])
        starts.copy_(torch.tensor(new_starts))
        lengths.copy_(torch.tensor(new_lengths))
        graph.replay()
        expected = run()
        for a, b in zip(captured, expected, strict=True):
            assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch.compile's own
def test_compiles_for_replay_as_a_graph() -> None:
    def attend(q: Tensor, lengths: Tensor) -> Tensor:
        return temporal_attention(q * 2, q, q, lengths, 9).relu()

    torch._dynamo.reset()
    compiled = torch.compile(attend, mode="reduce-overhead", fullgraph=True)
    for seed in range(4):  # the third call is the first replay
        torch.manual_seed(seed)
        q = torch.randn(2, 2, 70, 32, device="cuda", dtype=torch.bfloat16)
        lengths = torch.tensor([70, 1 + 20 * seed], device="cuda")
        expected = attend(q, lengths)
        torch.testing.assert_close(compiled(q, lengths).clone(), expected)
    torch._dynamo.reset()
