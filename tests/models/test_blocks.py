"""Pooling, upsampling, convolution and the Transformer block on packed rows, against loops over single videos."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.errors import WtalError
from wtal.models.blocks import TemporalConv, TransformerBlock, pool_pairs, upsample_pairs
from wtal.models.packing import packings

LONGEST = 13
lengths_of_a_batch = st.lists(st.integers(0, LONGEST), min_size=1, max_size=4).filter(lambda lengths: max(lengths) > 0)


def packed(lengths, dim=3, levels=1, gap=True):
    """Random videos, each ``[length, dim]``, their rows, and the packings of all levels."""
    videos = [torch.randn(length, dim) for length in lengths]
    x = torch.full((len(lengths), max(lengths) + 2, dim), torch.nan)
    for padded, video in zip(x, videos, strict=True):
        padded[: len(video)] = video
    found = packings(x, torch.tensor(lengths), levels, gap)
    return videos, found[0].pack(x), found


@settings(deadline=None, max_examples=50)
@given(lengths_of_a_batch)
def test_pool_pairs_is_the_mean_of_what_is_there(lengths):
    videos, rows, (fine, coarse) = packed(lengths, levels=2)
    rows[~fine.mask[:, 0]] = torch.nan  # never looked at
    pooled = pool_pairs(rows, fine.mask, coarse.mask)
    assert (pooled[~coarse.mask[:, 0]] == 0).all()
    for video, found in zip(videos, coarse.unpack(pooled, LONGEST), strict=True):
        for j in range((len(video) + 1) // 2):
            torch.testing.assert_close(found[j], video[2 * j : 2 * j + 2].mean(0))


@settings(deadline=None, max_examples=50)
@given(lengths_of_a_batch)
def test_upsample_pairs_is_interpolation_of_each_video_alone(lengths):
    _, rows, (fine, coarse) = packed(lengths, levels=2)
    pooled = pool_pairs(rows, fine.mask, coarse.mask)
    up = fine.unpack(upsample_pairs(pooled.masked_fill(~coarse.mask, torch.nan), coarse.mask), LONGEST)
    for video, found, half in zip(lengths, up, coarse.unpack(pooled, LONGEST), strict=True):
        if video:
            alone = half[None, : (video + 1) // 2].transpose(1, 2)
            expected = F.interpolate(alone, scale_factor=2, mode="linear")[0].T
            torch.testing.assert_close(found[:video], expected[:video])


@pytest.mark.parametrize("kernel_size", [1, 3])
@settings(deadline=None, max_examples=25)
@given(lengths=lengths_of_a_batch)
def test_temporal_conv_is_conv1d_of_each_video_alone(kernel_size, lengths):
    videos, rows, (packing,) = packed(lengths)
    conv = TemporalConv(3, 5, kernel_size)
    rows.requires_grad_()
    out = conv(rows, packing.mask)
    assert (out[~packing.mask[:, 0]] == 0).all()
    upstream = torch.randn_like(out)
    gradients = torch.autograd.grad(out, (rows, conv.weight, conv.bias), upstream)
    given = packing.unpack(upstream, LONGEST)
    expected, sums = [], [torch.zeros_like(conv.weight), torch.zeros_like(conv.bias)]
    for b, video in enumerate(videos):
        if len(video):
            video.requires_grad_()
            alone = F.conv1d(video.T[None], conv.weight, conv.bias, padding=kernel_size // 2)[0].T
            torch.testing.assert_close(packing.unpack(out, LONGEST)[b, : len(video)], alone)
            one, *parameters = torch.autograd.grad(alone, (video, conv.weight, conv.bias), given[b, : len(video)])
            expected.append(one)
            sums = [total + part for total, part in zip(sums, parameters, strict=True)]
    torch.testing.assert_close(gradients[0][packing.mask[:, 0]], torch.cat(expected), atol=1e-5, rtol=1e-4)
    for found, total in zip(gradients[1:], sums, strict=True):
        torch.testing.assert_close(found, total, atol=1e-5, rtol=1e-4)


def one_video(block, video, window):
    """The block on one video ``[T, 8]``, by its definition."""
    q, k, v = F.linear(block.attention_norm(video), block.qkv.weight, block.qkv.bias).chunk(3, dim=1)
    heads = []
    for h in range(2):
        part = slice(4 * h, 4 * h + 4)
        weights = q[:, part] @ k[:, part].T / 2  # sqrt(4)
        if window is not None:
            apart = (torch.arange(len(video))[:, None] - torch.arange(len(video))).abs()
            weights = weights.masked_fill(apart > window, -torch.inf)
        heads.append(weights.softmax(1) @ v[:, part])
    video = video + block.projection(torch.cat(heads, 1))
    return video + block.mlp_out(F.gelu(block.mlp_in(block.mlp_norm(video))))


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("window", [None, 0, 2])
def test_block_is_attention_and_mlp_with_residuals(window, gap):
    torch.manual_seed(0)
    block = TransformerBlock(8, 2, 2.0, dropout=0.5, window=window).eval()
    videos, rows, (packing,) = packed([7, 0, 3, 1], dim=8, gap=gap)
    out = packing.unpack(block(rows, packing), 7)
    for found, video in zip(out, videos, strict=True):
        if len(video):
            torch.testing.assert_close(found[: len(video)], one_video(block, video, window), atol=1e-5, rtol=1e-5)


def test_block_without_a_packing_takes_rows_of_one_length():
    block = TransformerBlock(8, 2, 2.0).eval()
    x = torch.randn(3, 5, 8)
    for found, video in zip(block(x), x, strict=True):
        torch.testing.assert_close(found, one_video(block, video, None), atol=1e-5, rtol=1e-5)


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
    _, rows, (packing,) = packed([5, 2], dim=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(rows, packing)
    torch.testing.assert_close(out.float(), block(rows, packing), atol=0.05, rtol=0.05)
    out.float().sum().backward()
    assert torch.isfinite(block.qkv.weight.grad).all()
