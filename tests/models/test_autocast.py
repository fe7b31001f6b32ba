"""A block under autocast to bfloat16, as training on a GPU uses it; on the CPU attention itself stays in float32."""

from __future__ import annotations

import pytest
import torch

from wtal.models import TransformerBlock
from wtal.models.packing import packings

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
def test_a_block_trains_in_bfloat16_as_in_float32(device: str) -> None:
    """Output and every gradient, within what bfloat16 rounds away."""
    torch.manual_seed(0)
    block = TransformerBlock(32, 2, 2.0, window=9).to(device)
    x = torch.randn(2, 40, 32, device=device)
    (packing,) = packings(x, torch.tensor([40, 17], device=device), 1, gap=False)
    found = {}
    for enabled in (False, True):
        block.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            out = block(packing.pack(x), packing)
        out.float().square().mean().backward()
        gradients = {name: parameter.grad.clone() for name, parameter in block.named_parameters()}
        found[enabled] = {"out": out.detach().float(), **gradients}
    for name, expected in found[False].items():
        a = found[True][name]
        assert torch.isfinite(a).all(), name
        assert (a - expected).norm() <= 0.03 * expected.norm() + 1e-6, name
