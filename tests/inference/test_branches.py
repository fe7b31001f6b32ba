"""Copies of a branch: learned parameters of their own, and the frozen ones of the source."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from wtal.inference.branches import Branches
from wtal.models.clip_text import PromptedCLIPText
from wtal.models.text_without_clip import PromptedTextFeatures
from wtal.models.vlp import VLP
from wtal.settings.config import VLPConfig


def prompted() -> nn.Module:
    return PromptedTextFeatures(torch.randn(3, 64))


def clip() -> nn.Module:
    import open_clip

    tower = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    return PromptedCLIPText(open_clip.CLIP(64, vision, tower), open_clip.get_tokenizer("ViT-B-16"), ["a", "b", "c"])


@pytest.mark.parametrize("text", [prompted, clip])
def test_a_copy_shares_the_frozen_text_encoder(text: Callable[[], nn.Module]) -> None:
    branches = Branches({"vlp": VLP(text(), 64, VLPConfig(heads=2))}, {})
    branches.copy("vlp", "teacher")
    one, other = branches["vlp"].text, branches["teacher"].text
    shared = {id(tensor) for tensor in one.encoder.parameters()}
    assert shared
    assert {id(tensor) for tensor in other.encoder.parameters()} == shared
    assert torch.equal(one(), other())
    with torch.no_grad():
        one.before.add_(torch.randn_like(one.before))
    assert not torch.equal(one(), other())
    assert not {id(p) for p in branches["vlp"].parameters() if p.requires_grad} & set(map(id, other.parameters()))
