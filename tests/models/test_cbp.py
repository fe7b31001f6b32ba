"""The CBP branch: shapes, padding, independence of a batch's videos, standardisation."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.errors import WtalError
from wtal.models.cbp import CBP
from wtal.settings.config import CBPConfig

CONFIG = CBPConfig(dim=16, heads=4)


def model(config=CONFIG, seed=0):
    torch.manual_seed(seed)
    return CBP(12, 5, config)


def test_shapes_and_the_initial_bias():
    cbp = model()
    lengths = torch.tensor([9, 1, 6])
    out = cbp(torch.randn(3, 9, 12), lengths)
    assert out.shape == (3, 9, 5)
    for video, length in zip(out, lengths.tolist(), strict=True):
        assert (video[length:] == 0).all()
        assert (video[:length] != 0).all()
    assert (cbp.output.bias == -2.0).all()


def test_levels_make_a_pyramid_of_strides():
    cbp = model(CBPConfig(dim=16, heads=4, levels=4))
    seen = []
    for block in cbp.encoder:
        block.register_forward_hook(lambda _, args, out: seen.append((len(out), args[1].lengths.tolist())))
    cbp(torch.randn(2, 13, 12), torch.tensor([13, 2]))
    # The coarsest level has a row more for each video, that stays empty.
    assert seen == [(40, [13, 2]), (20, [7, 1]), (10, [4, 1]), (5, [2, 1])]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.sampled_from([None, 0, 3]))
def test_a_video_does_not_depend_on_its_batch(lengths, window):
    cbp = model(CBPConfig(dim=16, heads=4, window=window)).eval()
    x = torch.randn(len(lengths), max(lengths), 12)
    together = cbp(x, torch.tensor(lengths))
    for b, length in enumerate(lengths):
        alone = cbp(x[b : b + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(together[b, :length], alone[0], atol=1e-5, rtol=1e-5)


def definition(cbp, video):
    """Logits of one video ``[T, 12]``, in plain PyTorch."""

    def conv(layer, x):
        return F.conv1d(x.T[None], layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)[0].T

    def factor(scale):
        return scale.factor if additive else 1.0

    additive = cbp.config.residual_init is not None
    x = conv(cbp.embedding, (video - cbp.input_mean) / cbp.input_std)
    x = torch.relu(x) if additive else x
    levels = []
    for number, block in enumerate(cbp.encoder):
        if number:
            x = F.avg_pool1d(x.T[None], 2, ceil_mode=True, count_include_pad=False)[0].T
        x = block(x[None])[0]
        levels.append(x)
    total = levels.pop()
    for x, scale in zip(reversed(levels), reversed(cbp.level_scales), strict=True):
        total = x + factor(scale) * F.interpolate(total.T[None], scale_factor=2, mode="linear")[0].T[: len(x)]
    x = total if additive else cbp.norm(total)
    for layer, scale in zip(cbp.decoder, cbp.decoder_scales, strict=True):
        decoded = torch.relu(conv(layer, x))
        x = x + factor(scale) * decoded if additive else decoded
    heads = [cbp.output] if cbp.attention is None else [cbp.output, cbp.attention]
    return torch.cat([conv(head, x) for head in heads], 1)


@settings(deadline=None, max_examples=25)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=4),
    levels=st.integers(1, 4),
    window=st.sampled_from([None, 0, 3]),
    additive=st.booleans(),
    attention=st.booleans(),
)
def test_logits_and_gradients_are_those_of_the_definition(lengths, levels, window, additive, attention):
    config = CBPConfig(
        dim=16, heads=4, levels=levels, window=window, residual_init=0.7 if additive else None, attention=attention
    )
    cbp = model(config).eval().double()
    cbp.set_statistics(torch.randn(12), torch.rand(12) + 0.1)
    x = torch.full((len(lengths), max(lengths) + 1, 12), torch.nan, dtype=torch.float64)
    for padded, length in zip(x, lengths, strict=True):
        padded[:length] = torch.randn(length, 12)
    outputs = cbp.outputs(x, torch.tensor(lengths), embedding=True)
    out, foreground = outputs.logits, outputs.attention
    assert outputs.embedding.shape == (*out.shape[:2], 16)
    assert torch.equal(cbp(x, torch.tensor(lengths)), out)
    assert (foreground is not None) == attention
    if foreground is not None:
        out = torch.cat([out, foreground[..., None]], 2)
    upstream = torch.randn_like(out)
    found = torch.autograd.grad((out * upstream).sum(), [*cbp.parameters()], allow_unused=not sum(lengths))
    total = torch.zeros((), dtype=torch.float64)
    for b, length in enumerate(lengths):
        if length:
            alone = definition(cbp, x[b, :length])
            torch.testing.assert_close(out[b, :length], alone)
            total = total + (alone * upstream[b, :length]).sum()
        assert (out[b, length:] == 0).all()
    if sum(lengths):
        for one, other in zip(found, torch.autograd.grad(total, [*cbp.parameters()]), strict=True):
            torch.testing.assert_close(one, other)


def test_it_begins_as_a_convolution_where_residuals_begin_at_zero():
    cbp = model(CBPConfig(dim=16, heads=4, residual_init=0.0)).eval()
    video = torch.randn(1, 30, 12)
    hidden = torch.relu(F.conv1d(video.mT, cbp.embedding.weight, cbp.embedding.bias, padding=1))
    expected = F.conv1d(hidden, cbp.output.weight, cbp.output.bias).mT
    torch.testing.assert_close(cbp(video, torch.tensor([30])), expected)


def test_an_empty_video_beside_others_gives_zeros():
    out = model().eval()(torch.randn(2, 4, 12), torch.tensor([4, 0]))
    assert torch.isfinite(out).all()
    assert (out[1] == 0).all()


def test_standardises_inside():
    cbp = model().eval()
    x, lengths = torch.randn(2, 8, 12), torch.tensor([8, 5])
    plain = cbp(x, lengths)
    mean, std = torch.randn(12), torch.rand(12) + 0.1
    cbp.set_statistics(mean, std)
    torch.testing.assert_close(cbp(x * std + mean, lengths), plain, atol=1e-5, rtol=1e-5)
    again = model(seed=1).eval()
    again.load_state_dict(cbp.state_dict())
    assert torch.equal(again(x, lengths), cbp(x, lengths))


def test_a_constant_dimension_is_only_centred():
    cbp = model()
    cbp.set_statistics(torch.full((12,), 3.0), torch.tensor([0.0] + [2.0] * 11))
    assert cbp.input_std.tolist() == [1.0] + [2.0] * 11


def test_the_given_features_stay_as_they_are():
    x = torch.randn(2, 8, 12)
    copy = x.clone()
    model().train()(x, torch.tensor([8, 5]))
    assert torch.equal(x, copy)


def test_gradients_reach_every_parameter():
    cbp = model()
    cbp(torch.randn(2, 9, 12), torch.tensor([9, 5])).square().sum().backward()
    for name, parameter in cbp.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_stored_precision_does_not_matter(dtype):
    cbp = model().eval()
    x = torch.randn(1, 6, 12).half()
    expected = cbp(x.float(), torch.tensor([6]))
    if dtype == torch.float64:
        cbp = cbp.double()
    torch.testing.assert_close(cbp(x.to(dtype), torch.tensor([6])).float(), expected, atol=1e-5, rtol=1e-5)


def test_runs_under_cpu_autocast():
    cbp = model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = cbp(torch.randn(2, 9, 12), torch.tensor([9, 5]))
    out.float().square().sum().backward()
    assert torch.isfinite(out).all()
    assert torch.isfinite(cbp.embedding.weight.grad).all()


def test_wrong_shapes_and_settings_are_named():
    cbp = model()
    with pytest.raises(ValueError, match=r"i3d has shape \(2, 9, 11\); expected \[B, T, 12\]"):
        cbp(torch.randn(2, 9, 11), torch.tensor([9, 5]))
    with pytest.raises(ValueError, match=r"std has shape \(11,\)"):
        cbp.set_statistics(torch.zeros(12), torch.ones(11))
    with pytest.raises(ValueError, match="expected finite values"):
        cbp.set_statistics(torch.full((12,), torch.nan), torch.ones(12))
    with pytest.raises(WtalError, match="levels is 0"):
        model(CBPConfig(dim=16, heads=4, levels=0))
