"""Frame logits of one video in bounded memory: a branch with an attention window computes a long one in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from wtal.data.batches import Batch
from wtal.errors import WtalError
from wtal.inference.branches import Branches
from wtal.platform.device import Device

SNIPPETS = 16_384
"""The number of snippets in a batch, and about that in a part of a longer video."""

LONGEST = 65_536
"""The largest number of snippets for a branch without an attention window."""

Parts = Callable[[int, int], Iterable[tuple[Batch, int, int]]]
"""Reads a video in parts, from their size and overlap, as :func:`wtal.data.batches.in_parts` does."""


def check_length(branches: Branches, name: str, what: str, length: int) -> None:
    """Check that a video is not too long for a branch.

    Args:
        branches: the branches.
        name: the branch.
        what: the video, for the message.
        length: the number of its snippets.

    Raises:
        WtalError: the branch has no attention window, and the video has more than :data:`LONGEST` snippets.
    """
    if length > LONGEST and branches.reading(name).reach is None:
        section = "vlp" if branches.reads_clip(name) else "cbp"
        raise WtalError(
            f"{what}: {length} snippets, but a branch whose attention reaches the whole video takes at most {LONGEST}; "
            f"train with --{section}.window N (any length goes then), or cut the video into parts"
        )


def part_size(branches: Branches, name: str) -> int:
    """The number of snippets in a part of a long video; 0: the branch has no window and takes only whole videos."""
    branch = branches.reading(name)
    return 0 if branch.reach is None else -(-SNIPPETS // branch.stride) * branch.stride


def logits_in_parts(branches: Branches, name: str, length: int, parts: Parts, device: Device) -> Tensor:
    """Logits ``[1, T, C]`` of one video. Each part is extended by the snippets on which its logits depend.

    Args:
        branches: the branches, in evaluation mode.
        name: the branch.
        length: the number of snippets.
        parts: reads the features that the branch needs.
        device: the device to compute on, where the logits are.
    """
    branch = branches.reading(name)
    # A multiple of the stride, so that pooling is the same as in the whole video.
    overlap = -(-(branch.reach or 0) // branch.stride) * branch.stride
    whole: Tensor | None = None
    for batch, first, last in parts(part_size(branches, name) or length, overlap):
        start = int(batch.start)
        with torch.inference_mode(), device.autocast():
            logits = branches.logits(name, batch.to(device.name)).float()
        if whole is None:
            whole = logits.new_empty(1, length, logits.shape[2])
        whole[:, first:last] = logits[:, first - start : last - start]
    assert whole is not None
    return whole


def parts_of(video: Batch) -> Parts:
    """Reads the parts of a video whose features are in memory, a batch of one video."""

    def parts(size: int, overlap: int) -> Iterator[tuple[Batch, int, int]]:
        length = int(video.lengths)
        for first in range(0, length, size):
            last = min(first + size, length)
            start, stop = max(0, first - overlap), min(length, last + overlap)
            part = replace(
                video,
                i3d=None if video.i3d is None else video.i3d[:, start:stop],
                clip=None if video.clip is None else video.clip[:, start:stop],
                lengths=torch.tensor([stop - start]),
                start=torch.tensor([start]),
            )
            yield part, first, last

    return parts
