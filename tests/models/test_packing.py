"""Batches without their padding, and back."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.models.packing import packings

lengths_of_a_batch = st.lists(st.integers(0, 20), min_size=1, max_size=5)


@settings(deadline=None, max_examples=100)
@given(lengths=lengths_of_a_batch, levels=st.integers(1, 4), extra=st.integers(1, 3))
def test_each_level_holds_every_video_whole_and_apart(lengths, levels, extra):
    x = torch.randn(len(lengths), max(lengths) + extra, 2)
    found = packings(x, torch.tensor(lengths), levels, gap=True)
    assert len(found) == levels
    for level, here in enumerate(found):
        counts = [-(-length // 2**level) for length in lengths]
        assert here.lengths.tolist() == counts
        assert here.mask.sum() == sum(counts)
        assert len(here.mask) == len(found[0].mask) // 2**level
        runs, row = [], 0
        mask = here.mask[:, 0].tolist()
        assert not mask[-1]
        for count in counts:
            if count:
                row = mask.index(True, row)
                runs.append((row, row + count))
                assert all(mask[row : row + count])
                assert not mask[row + count]
                row += count
        assert sum(stop - start for start, stop in runs) == sum(mask)
        assert [start for start, n in zip(here.starts.tolist(), counts, strict=True) if n] == [run[0] for run in runs]
        assert here.starts.tolist() == sorted(here.starts.tolist())
        if level:  # a row stands for the same two rows of the level before, whichever video
            finer = found[level - 1].mask[:, 0].unflatten(0, (-1, 2)).any(1)
            assert torch.equal(finer, here.mask[:, 0])


@settings(deadline=None, max_examples=100)
@given(lengths=lengths_of_a_batch, gap=st.booleans(), extra=st.integers(1, 3), size=st.integers(0, 3))
def test_packing_and_unpacking_move_every_snippet_and_its_gradient(lengths, gap, extra, size):
    x = torch.randn(len(lengths), max(lengths) + extra, 2, 3)
    for video, length in zip(x, lengths, strict=True):
        video[length:] = torch.nan
    x.requires_grad_()
    (packing,) = packings(x, torch.tensor(lengths), 1, gap)
    rows = packing.pack(x)
    assert len(rows) == sum(lengths) + gap * len(lengths)
    expected = [part for video, n in zip(x, lengths, strict=True) for part in (video[:n], torch.zeros(int(gap), 2, 3))]
    assert torch.equal(rows, torch.cat(expected))
    back = packing.unpack(rows, max(1, *lengths) + size)
    weight = torch.randn_like(back)
    (gradient,) = torch.autograd.grad((back * weight).sum(), x)
    for b, length in enumerate(lengths):
        assert torch.equal(back[b, :length], x[b, :length])
        assert (back[b, length:] == 0).all()
        assert torch.equal(gradient[b, :length], weight[b, :length])
        assert (gradient[b, length:] == 0).all()
