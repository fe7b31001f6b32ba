"""A model brought back from its checkpoint computes what the model that was saved computes, bit by bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from wtal.data.batches import Batch
from wtal.inference.branches import Branches, restore_branches
from wtal.models.cbp import CBP
from wtal.models.clip_text import PromptedCLIPText
from wtal.models.text_without_clip import FixedText, PromptedTextFeatures
from wtal.models.vlp import VLP
from wtal.runs.checkpoint import load_checkpoint, save_checkpoint
from wtal.settings.config import CBPConfig, RunConfig, VLPConfig

CLASSES = [f"class {index}" for index in range(20)]


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def fixed() -> nn.Module:
    return FixedText(torch.randn(len(CLASSES), 64))


def prompted() -> nn.Module:
    text = PromptedTextFeatures(torch.randn(len(CLASSES), 64))
    text.before.data.add_(torch.randn_like(text.before), alpha=0.3)
    return text


def clip() -> nn.Module:
    import open_clip

    tower = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
    vision = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    model = open_clip.CLIP(64, vision, tower)
    return PromptedCLIPText(model, open_clip.get_tokenizer("ViT-B-16"), CLASSES)


def built(text: nn.Module) -> Branches:
    cbp = CBPConfig(dim=32, heads=2, levels=2)
    config = dataclasses.replace(RunConfig(), cbp=cbp, vlp=VLPConfig(heads=2, init_std=0.1))
    facts = {"config": dataclasses.asdict(config), "classes": CLASSES, "i3d_dim": 48, "clip_dim": 64, "grid": {}}
    made = Branches({"cbp": CBP(48, len(CLASSES), config.cbp), "vlp": VLP(text, 64, config.vlp)}, facts)
    made.vision_language.bias.data.fill_(0.2)
    return made.eval()


def logits(branches: Branches, name: str, batch: Batch) -> Tensor:
    with torch.inference_mode(), branches.vision_language.hold_text():
        return branches.logits(name, batch)


@pytest.mark.parametrize("text", [fixed, prompted, clip])
def test_logits_of_a_restored_model_are_the_same_bits(
    text: Callable[[], nn.Module], threads: int, tmp_path: Path
) -> None:
    saved = built(text())
    save_checkpoint(tmp_path / "a.safetensors", saved.tensors(), saved.facts)
    restored, _ = restore_branches(load_checkpoint(tmp_path / "a.safetensors"))
    with torch.no_grad():
        assert torch.equal(restored.vision_language.text(), saved.vision_language.text())
    for longest in (1, 7, 200):
        lengths = torch.randint(1, longest + 1, (3,))
        lengths[0] = longest
        batch = Batch(
            i3d=torch.randn(3, longest, 48),
            clip=torch.randn(3, longest, 64),
            lengths=lengths,
            labels=torch.zeros(3, len(CLASSES)),
            index=torch.arange(3),
            start=torch.zeros(3, dtype=torch.int64),
        )
        for name in ("cbp", "vlp"):
            assert torch.equal(logits(restored, name, batch), logits(saved, name, batch)), (name, longest)


def test_nothing_drifts_however_often_a_model_is_loaded_and_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    saved = built(prompted())
    first = saved.tensors()
    for _ in range(3):
        save_checkpoint(path, saved.tensors(), saved.facts)
        saved, _ = restore_branches(load_checkpoint(path))
    last = saved.tensors()
    assert torch.equal(last["vlp.text.features"], first["text_features"])
    for name, tensor in last.items():
        assert name == "vlp.text.features" or torch.equal(tensor, first[name])


@pytest.mark.parametrize("odd", [0, 1, 3, 5])
def test_tensors_of_a_checkpoint_begin_where_torch_puts_its_own(odd: int, tmp_path: Path) -> None:
    """Matrix products round by where their operands begin, and in a safetensors file a tensor begins anywhere."""
    path = tmp_path / "a.safetensors"
    tensors = {"a": torch.zeros(odd, dtype=torch.uint8), "b": torch.randn(7, 3), "c": torch.randn(3, 5).double()}
    tensors |= {"d": torch.randn(64, 100), "e": torch.randn(()), "f": torch.zeros(0, 2)}
    save_checkpoint(path, tensors, {"name": "x" * odd})
    raw = safetensors.torch.load_file(path)
    read = load_checkpoint(path).tensors
    assert read.keys() == tensors.keys()
    for name, tensor in read.items():
        assert torch.equal(tensor, raw[name])
        assert tensor.data_ptr() % 64 == torch.empty(1).data_ptr() % 64 == 0
        assert tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
