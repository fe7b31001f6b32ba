"""Lengths and masks of a padded batch, and the pooling of snippets to videos, against loops over single videos."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.models.masks import trim
from wtal.models.mil import video_logits
from wtal.models.packing import packings

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
@pytest.mark.parametrize(
    "take",
    [
        pytest.param(trim, id="trim"),
        pytest.param(lambda x, lengths: packings(x, lengths, 2, gap=False), id="packings"),
        pytest.param(lambda x, lengths: packings(x, lengths, 2, gap=True), id="packings with gaps"),
    ],
)
def test_wrong_lengths_are_named(take, lengths, message):
    with pytest.raises(ValueError, match=message):
        take(torch.zeros(2, 5, 3), lengths)


def test_an_empty_batch_is_named():
    with pytest.raises(ValueError, match="at least one video and one snippet"):
        trim(torch.zeros(2, 0, 3), torch.zeros(2, dtype=torch.int64))


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
