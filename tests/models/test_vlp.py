"""The VLP branch: cosines, the calibrated bias, prompts and what learns."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.errors import WtalError
from wtal.models.text_without_clip import FixedText, PromptedTextFeatures
from wtal.models.vlp import VLP
from wtal.settings.config import VLPConfig

CONFIG = VLPConfig(heads=4)


def model(config=CONFIG, text=None):
    torch.manual_seed(0)
    return VLP(text or PromptedTextFeatures(torch.randn(5, 16)), 16, config)


def test_logits_are_shifted_cosines_over_the_temperature():
    vlp = model(VLPConfig(blocks=0, temperature=0.5))
    vlp.bias.data.fill_(0.25)
    x, lengths = torch.randn(2, 7, 16), torch.tensor([7, 3])
    out = vlp(x, lengths)
    assert out.shape == (2, 7, 5)
    expected = (F.cosine_similarity(x[:, :, None], vlp.text()[None, None], dim=-1) - 0.25) / 0.5
    torch.testing.assert_close(out[0], expected[0])
    torch.testing.assert_close(out[1, :3], expected[1, :3])
    assert (out[1, 3:] == 0).all()


def test_the_norm_on_disk_does_not_matter_and_fresh_blocks_change_little():
    torch.manual_seed(0)
    text = FixedText(torch.randn(5, 512))
    vlp, bare = VLP(text, 512, VLPConfig()).eval(), VLP(text, 512, VLPConfig(blocks=0))
    x, lengths = F.normalize(torch.randn(2, 30, 512), dim=2), torch.tensor([30, 11])
    torch.testing.assert_close(vlp(20 * x, lengths), vlp(x, lengths), atol=1e-4, rtol=0)
    fresh, plain = (model.cosine(x, model.packing(x, lengths)) for model in (vlp, bare))
    assert torch.corrcoef(torch.stack([fresh.flatten(), plain.flatten()]))[0, 1] > 0.99


def test_blocks_start_small():
    vlp = model(VLPConfig(heads=4, init_std=0.01))
    for name, parameter in vlp.blocks.named_parameters():
        if name.endswith("weight") and "norm" not in name:
            assert parameter.std().item() == pytest.approx(0.01, rel=0.2), name


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.sampled_from([None, 2]))
def test_a_video_does_not_depend_on_its_batch(lengths, window):
    vlp = model(VLPConfig(heads=4, init_std=0.3, window=window)).eval()
    x = torch.randn(len(lengths), max(lengths), 16)
    together = vlp(x, torch.tensor(lengths))
    for b, length in enumerate(lengths):
        alone = vlp(x[b : b + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(together[b, :length], alone[0], atol=1e-4, rtol=1e-4)


def test_calibrate_bias_streams_mean_and_deviation():
    vlp = model(VLPConfig(heads=4, bias_deviations=1.5)).train()
    x, lengths = torch.randn(6, 9, 16), torch.tensor([9, 4, 1, 7, 9, 2])
    x[1, 4:] = torch.nan
    batches = [(x[:2], lengths[:2]), (x[2:3], lengths[2:3]), (x[3:], lengths[3:])]
    mean, deviation = vlp.calibrate_bias(iter(batches))
    assert vlp.training
    pooled = vlp.eval().cosine(x, vlp.packing(x, lengths)).detach().double()
    assert mean == pytest.approx(pooled.mean().item(), rel=1e-5)
    assert deviation == pytest.approx(pooled.std(correction=0).item(), rel=1e-5)
    assert vlp.bias.item() == pytest.approx(mean + 1.5 * deviation, rel=1e-6)
    with pytest.raises(ValueError, match="no valid snippet"):
        vlp.calibrate_bias([])


def test_gradients_reach_prompts_and_blocks_but_not_the_text_encoder():
    vlp = model()
    vlp(torch.randn(2, 7, 16), torch.tensor([7, 3])).square().sum().backward()
    for name, parameter in vlp.named_parameters():
        if name.startswith("text.encoder"):
            assert not parameter.requires_grad
            assert parameter.grad is None
        else:
            assert parameter.grad.abs().max() > 0, name


def test_constant_text_features_give_the_same_without_an_encoder():
    vlp = model(VLPConfig(heads=4, init_std=0.3)).eval()
    vlp.text.before.data.add_(0.5)
    fixed = VLP(FixedText(3.0 * vlp.text().detach()), 16, vlp.config).eval()
    assert not list(fixed.text.parameters())
    fixed.blocks.load_state_dict(vlp.blocks.state_dict())
    x, lengths = torch.randn(2, 7, 16), torch.tensor([7, 3])
    torch.testing.assert_close(fixed(x, lengths), vlp(x, lengths))


def test_half_precision_never_reaches_the_cosine():
    vlp = model()
    x, lengths = torch.randn(2, 9, 16), torch.tensor([9, 5])
    exact = vlp.eval()(x, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = vlp(x, lengths)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, exact, atol=0.1, rtol=0.02)
    out.sum().backward()
    assert torch.isfinite(vlp.text.before.grad).all()


def test_widths_that_differ_are_named():
    with pytest.raises(WtalError, match="have 24 dimensions, but the text features 16"):
        VLP(FixedText(torch.eye(16)), 24, CONFIG)
    with pytest.raises(ValueError, match=r"clip has shape \(1, 3, 8\); expected \[B, T, 16\]"):
        model()(torch.zeros(1, 3, 8), torch.tensor([3]))


@pytest.mark.parametrize("classes", [2, 3, 100])
def test_prompts_start_at_the_given_features(classes):
    features = F.normalize(torch.randn(classes, 24), dim=1)
    text = PromptedTextFeatures(features, 4, 2, seed=3)
    torch.testing.assert_close(text(), features, atol=1e-5, rtol=0)
    text.after.data.add_(0.1 * torch.randn(2, text.after.shape[1]))
    moved = text()
    assert (moved - features).abs().max() > 1e-4
    torch.testing.assert_close(moved.norm(dim=1), torch.ones(classes))


def test_prompted_features_are_a_function_of_the_seed_and_leave_the_generator_alone():
    features = torch.randn(3, 8)
    state = torch.get_rng_state()
    one, two, other = (PromptedTextFeatures(features, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.before, two.before)
    assert not torch.equal(one.before, other.before)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other(), one())


def test_copies_do_not_share_prompts():
    vlp = model()
    twin = copy.deepcopy(vlp)
    twin.text.before.data.add_(1.0)
    assert not torch.equal(twin.text(), vlp.text())
