"""Masking, pooling, upsampling and the Transformer block, against loops over single videos."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.errors import WtalError
from wtal.models.blocks import (
    TemporalConv,
    TransformerBlock,
    pool_pairs,
    restore,
    trim,
    upsample_pairs,
    valid_mask,
    video_logits,
)

lengths_of_a_batch = st.lists(st.integers(0, 13), min_size=1, max_size=4).filter(lambda lengths: max(lengths) > 0)


def batch(lengths, dim=3, beyond=float("nan"), extra=0):
    """Random videos [B, T, dim], ``beyond`` after each length."""
    x = torch.randn(len(lengths), max(lengths) + extra, dim)
    for video, length in zip(x, lengths, strict=True):
        video[length:] = beyond
    return x, torch.tensor(lengths)


def test_trim_cuts_to_the_longest_and_clears_nan():
    x, lengths = batch([3, 0, 5], extra=4)
    out = trim(x, lengths)
    assert out.shape == (3, 5, 3)
    for video, original, length in zip(out, x, (3, 0, 5), strict=True):
        assert torch.equal(video[:length], original[:length])
        assert (video[length:] == 0).all()
    assert restore(out, 9).shape == (3, 9, 3)
    assert (restore(out, 9)[:, 5:] == 0).all()


def test_trim_of_empty_videos_keeps_one_snippet():
    assert trim(torch.ones(2, 4, 1), torch.tensor([0, 0])).tolist() == [[[0.0]], [[0.0]]]


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (torch.tensor([2]), r"lengths has shape \(1,\)"),
        (torch.tensor([2, 3], dtype=torch.int32), "torch.int32; expected int64"),
        (torch.tensor([2, 6]), "range from 2 to 6; expected 0 to 5"),
        (torch.tensor([-1, 3]), "range from -1 to 3"),
    ],
)
def test_wrong_lengths_are_named(lengths, message):
    with pytest.raises(ValueError, match=message):
        trim(torch.zeros(2, 5, 3), lengths)


def test_an_empty_batch_is_named():
    with pytest.raises(ValueError, match="at least one video and one snippet"):
        trim(torch.zeros(2, 0, 3), torch.zeros(2, dtype=torch.int64))


@settings(deadline=None, max_examples=50)
@given(lengths_of_a_batch)
def test_pool_pairs_against_a_loop(lengths):
    x, n = batch(lengths, beyond=0.0)
    pooled, coarse = pool_pairs(x, n)
    assert pooled.shape[1] == (x.shape[1] + 1) // 2
    assert coarse.tolist() == [(length + 1) // 2 for length in lengths]
    for b, length in enumerate(lengths):
        for j in range((length + 1) // 2):
            torch.testing.assert_close(pooled[b, j], x[b, 2 * j : min(2 * j + 2, length)].mean(0))


@settings(deadline=None, max_examples=50)
@given(lengths_of_a_batch)
def test_upsample_pairs_is_interpolation_of_each_video_alone(lengths):
    x, coarse = batch(lengths)
    size = 2 * x.shape[1] - 1
    out = upsample_pairs(x, coarse, size)
    assert out.shape == (len(lengths), size, 3)
    for b, length in enumerate(lengths):
        if length:
            alone = F.interpolate(x[b : b + 1, :length].transpose(1, 2), scale_factor=2, mode="linear")
            upto = min(2 * length, size)
            torch.testing.assert_close(out[b, :upto], alone[0].T[:upto])


@settings(deadline=None, max_examples=50)
@given(lengths_of_a_batch, st.integers(1, 9))
def test_video_logits_against_a_loop(lengths, divisor):
    x, n = batch(lengths, extra=2)
    out = video_logits(x, n, divisor)
    for b, length in enumerate(lengths):
        count = max(1, length // divisor)
        for c in range(3):
            top = sorted(x[b, :length, c].tolist(), reverse=True)[:count]
            expected = sum(top) / count if top else 0.0
            assert out[b, c].item() == pytest.approx(expected, abs=1e-6)


def test_video_logits_of_half_precision_are_float32():
    assert video_logits(torch.zeros(1, 4, 2, dtype=torch.bfloat16), torch.tensor([4]), 8).dtype == torch.float32


def test_temporal_conv_is_conv1d_of_each_video_alone():
    x, lengths = batch([6, 1, 4], beyond=0.0)
    conv = TemporalConv(3, 5, 3)
    out = conv(x, valid_mask(lengths, 6)[..., None])
    for b, length in enumerate([6, 1, 4]):
        alone = F.conv1d(x[b, :length].T[None], conv.weight, conv.bias, padding=1)[0].T
        torch.testing.assert_close(out[b, :length], alone)
        assert (out[b, length:] == 0).all()


@pytest.mark.parametrize("window", [None, 0, 2])
def test_block_is_attention_and_mlp_with_residuals(window):
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 2.0, dropout=0.5, window=window).eval()
    x, lengths = batch([7, 3], dim=8, beyond=0.0)
    out = block(x, lengths)
    for b, length in enumerate([7, 3]):
        video = x[b, :length]
        q, k, v = F.linear(block.attention_norm(video), block.qkv.weight, block.qkv.bias).chunk(3, dim=1)
        heads = []
        for h in range(2):
            part = slice(4 * h, 4 * h + 4)
            weights = q[:, part] @ k[:, part].T / 2  # sqrt(4)
            if window is not None:
                apart = (torch.arange(length)[:, None] - torch.arange(length)).abs()
                weights = weights.masked_fill(apart > window, -torch.inf)
            heads.append(weights.softmax(1) @ v[:, part])
        video = video + block.projection(torch.cat(heads, 1))
        video = video + block.mlp_out(F.gelu(block.mlp_in(block.mlp_norm(video))))
        torch.testing.assert_close(out[b, :length], video, atol=1e-5, rtol=1e-5)


def test_block_starts_at_the_given_deviation():
    torch.manual_seed(0)
    block = TransformerBlock(64, 4, 4.0, init_std=0.01)
    for layer in (block.qkv, block.projection, block.mlp_in, block.mlp_out):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert layer.bias.abs().max() == 0


def test_block_names_heads_that_do_not_divide():
    with pytest.raises(WtalError, match="3 attention heads do not divide a width of 8"):
        TransformerBlock(8, 3, 2.0)


def test_block_runs_under_cpu_autocast():
    block = TransformerBlock(8, 2, 2.0)
    x = torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(x, torch.tensor([5, 2]))
    torch.testing.assert_close(out.float(), block(x, torch.tensor([5, 2])), atol=0.05, rtol=0.05)
    out.float().sum().backward()
    assert torch.isfinite(block.qkv.weight.grad).all()
