from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from wtal.training.pseudo_label_storage import pack_targets, unpack_targets


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    classes=st.integers(1, 5),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.int8, torch.float32]),
)
def test_they_come_back_the_same(lengths: list[int], classes: int, seed: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(seed)
    targets = [torch.randint(-1, 2, (length, classes), generator=random).to(dtype) for length in lengths]
    for target in targets:  # absent classes
        target[:, torch.rand(classes, generator=random) < 0.5] = 0
    packed = pack_targets(targets)
    back = unpack_targets(packed)
    assert len(back) == len(targets)
    for target, found in zip(targets, back, strict=True):
        assert found.dtype == dtype
        assert torch.equal(found, target)
    assert packed["values"].numel() == sum(int((t != 0).any(0).sum()) * len(t) for t in targets)
