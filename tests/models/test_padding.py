"""500 snippets of NaN appended to a batch change no logit, loss or gradient, not by a bit."""

import pytest
import torch
import torch.nn.functional as F

from wtal.models.cbp import CBP, FrameOutputs
from wtal.models.mil import video_logits
from wtal.models.text_without_clip import PromptedTextFeatures
from wtal.models.vlp import VLP
from wtal.settings.config import CBPConfig, LossConfig, VLPConfig
from wtal.training.losses import step_loss
from wtal.training.rank_labels import rank_labels

LENGTHS = torch.tensor([23, 8, 17])
LABELS = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def branch(name):
    torch.manual_seed(0)
    if name == "cbp":
        return CBP(12, 4, CBPConfig(dim=16, heads=4))
    if name == "additive cbp":
        return CBP(12, 4, CBPConfig(dim=16, heads=4, residual_init=0.5, attention=True, output_dropout=0.5, window=2))
    return VLP(PromptedTextFeatures(torch.randn(4, 12)), 12, VLPConfig(heads=4, init_std=0.1))


def train_step(name, extra):
    model = branch(name).train()
    x = torch.randn(3, 23, 12, generator=torch.Generator().manual_seed(1))
    x = F.pad(x, (0, 0, 0, extra), value=torch.nan)
    teacher = torch.randn(3, 23, 4, generator=torch.Generator().manual_seed(2))
    teacher = F.pad(teacher, (0, 0, 0, extra), value=torch.nan)
    target = rank_labels(teacher, LENGTHS, LABELS, 0.8, 0.6)
    torch.manual_seed(3)
    outputs = FrameOutputs(model(x, LENGTHS)) if name == "vlp" else model.outputs(x, LENGTHS, embedding=True)
    logits = outputs.logits
    terms = step_loss(outputs, LENGTHS, LABELS, LossConfig(contrast=0.3), target, softmax=name == "additive cbp")
    terms["total"].mean().backward()
    gradients = {key: value.grad for key, value in model.named_parameters() if value.requires_grad}
    return logits.detach(), target, {key: value.detach() for key, value in terms.items()}, gradients


@pytest.mark.parametrize("name", ["cbp", "additive cbp", "vlp"])
def test_nan_padding_changes_no_bit_of_training(name):
    logits, target, terms, gradients = train_step(name, 0)
    padded_logits, padded_target, padded_terms, padded_gradients = train_step(name, 500)
    assert torch.equal(padded_logits[:, :23], logits)
    assert (padded_logits[:, 23:] == 0).all()
    assert torch.equal(padded_target[:, :23], target)
    assert (padded_target[:, 23:] == -1).all()
    for key, value in terms.items():
        assert torch.isfinite(value).all(), key
        assert torch.equal(padded_terms[key], value), key
    assert len(gradients) > 10
    for key, value in gradients.items():
        assert torch.isfinite(value).all(), key
        assert torch.equal(padded_gradients[key], value), key


@pytest.mark.parametrize("name", ["cbp", "additive cbp", "vlp"])
def test_nan_padding_changes_no_bit_of_inference(name):
    model = branch(name).eval()
    x = torch.randn(3, 23, 12)
    with torch.no_grad():
        logits = model(x, LENGTHS)
        padded = model(F.pad(x, (0, 0, 0, 500), value=torch.nan), LENGTHS)
    assert torch.equal(padded[:, :23], logits)
    assert torch.equal(video_logits(padded, LENGTHS, 8), video_logits(logits, LENGTHS, 8))
