"""The inputs of the networks from a stream of frames: windows of RGB, windows of flow, single frames for CLIP.

A video of ``F`` frames has ``T = 1 + (F - window) // stride`` snippets: snippet ``i`` is the window
``[i * stride, i * stride + window)``. Up to ``stride - 1`` frames at the end are in no snippet. If ``F < window``,
there is one snippet, in which the last frame is repeated.

The flow of frame ``t`` is the motion from frame ``t`` to frame ``t + 1``. So the flow of a snippet also depends on the
first frame after the snippet. The last frame of the video has the flow of the frame before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from wtal.features.flow import centre_crop, grayscale
from wtal.features.flow_pool import Pending
from wtal.features.options import Stream

BLOCK = 16
"""Frames per block. A worker computes the flow of one block at a time."""

SubmitFlow = Callable[[int, Sequence[np.ndarray], bool], Pending]
"""Submits a block of flow. The arguments are the number of the block; its grey frames, followed by the first frame of
the next block; and whether it is the last block of the video, so that there is no such frame."""


@dataclass(frozen=True)
class Cut:
    """Which pieces to cut from a video.

    Attributes:
        stride: frames from the start of one snippet to the start of the next.
        window: frames in one snippet.
        crop: edge of the centre crop in pixels.
        rgb: whether to cut windows of RGB.
        flow: submits a block of flow; None: no flow.
        clip: whether to cut frames for CLIP.
        clip_step: frames from one CLIP frame to the next; None: the middle frame of each snippet.
    """

    stride: int
    window: int
    crop: int
    rgb: bool
    flow: SubmitFlow | None
    clip: bool
    clip_step: Fraction | None


@dataclass(frozen=True)
class Piece:
    """One input of one network, which gives one feature row.

    Attributes:
        stream: the stream, which selects the network.
        row: the index of the feature row.
        data: uint8 RGB ``[window, crop, crop, 3]``; for CLIP ``[crop, crop, 3]``; for flow a :class:`FlowWindow`.
    """

    stream: Stream
    row: int
    data: np.ndarray | FlowWindow


class FlowWindow:
    """The flow of one snippet, from blocks that workers may still be computing.

    Args:
        blocks: for each block, the index of its first frame, the number of flows to skip at its beginning, and the
            block. The flows to skip belong to frames of earlier blocks.
        start: index of the window's first frame.
        window: frames in the window.
    """

    def __init__(self, blocks: Sequence[tuple[int, int, Pending]], start: int, window: int) -> None:
        self._blocks = blocks
        self._start = start
        self._window = window

    def result(self) -> np.ndarray:
        """Wait for the blocks; returns int16 ``[window, crop, crop, 2]``. For missing frames the last flow repeats."""
        stop = self._start + self._window
        parts = []
        for first, skipped, pending in self._blocks:
            flows = pending.result()[skipped:]
            parts.append(flows[max(self._start - first, 0) : max(stop - first, 0)])
        flow = np.concatenate(parts)
        missing = self._window - len(flow)
        return np.concatenate([flow, np.repeat(flow[-1:], missing, axis=0)]) if missing else flow


def cut(frames: Iterable[np.ndarray], what: Cut) -> Iterator[Piece]:
    """The pieces of one video, in order within each stream. At most a window and a block of frames are in memory.

    Args:
        frames: uint8 RGB ``[H, W, 3]``, each at least ``crop`` high and wide; at least one frame.
        what: which pieces to cut.
    """
    windows = _Windows(what)
    flows = _Flows(what) if what.flow is not None else None
    samples = _Samples(what.clip_step) if what.clip and what.clip_step is not None else None
    for frame in frames:
        cropped = centre_crop(frame, what.crop)
        if samples is not None:
            yield from samples.push(cropped)
        yield from windows.push(cropped)
        if flows is not None:
            yield from flows.push(grayscale(frame))
    yield from windows.finish()
    if flows is not None:
        yield from flows.finish()


class _Windows:
    """Cuts windows of RGB, and their middle frames for CLIP."""

    def __init__(self, what: Cut) -> None:
        self._what = what
        self._kept: deque[np.ndarray] = deque(maxlen=what.window)
        self._seen = 0
        self._row = 0

    def push(self, frame: np.ndarray) -> Iterator[Piece]:
        self._kept.append(frame)
        self._seen += 1
        if self._seen == self._row * self._what.stride + self._what.window:
            yield from self._emit()

    def finish(self) -> Iterator[Piece]:
        if self._row == 0:
            centre = self._kept[min(self._what.window // 2, len(self._kept) - 1)]
            self._kept.extend([self._kept[-1]] * (self._what.window - len(self._kept)))
            yield from self._emit(centre)

    def _emit(self, centre: np.ndarray | None = None) -> Iterator[Piece]:
        if self._what.rgb:
            yield Piece("rgb", self._row, np.stack(self._kept))
        if self._what.clip and self._what.clip_step is None:
            image = self._kept[self._what.window // 2] if centre is None else centre
            yield Piece("clip", self._row, np.ascontiguousarray(image))
        self._row += 1


class _Samples:
    """Cuts frames for CLIP at a given rate: row ``k`` is the frame nearest to ``k * step``."""

    def __init__(self, step: Fraction) -> None:
        self._step = step
        self._seen = 0
        self._row = 0

    def push(self, frame: np.ndarray) -> Iterator[Piece]:
        while math.floor(self._row * self._step + Fraction(1, 2)) == self._seen:
            yield Piece("clip", self._row, np.ascontiguousarray(frame))
            self._row += 1
        self._seen += 1


@dataclass(frozen=True)
class _Block:
    """The flow of the frames ``[first, after)``; the first ``skipped`` flows of the block belong to earlier frames."""

    first: int
    after: int
    skipped: int
    flows: Pending


class _Flows:
    """Cuts windows of flow. Each block is submitted as soon as its frames have been read."""

    def __init__(self, what: Cut) -> None:
        assert what.flow is not None
        self._submit = what.flow
        self._stride, self._window = what.stride, what.window
        self._grey: list[np.ndarray] = []  # frames of the current block
        self._before: np.ndarray | None = None  # the frame before the current block
        self._blocks: deque[_Block] = deque()
        self._number = 0
        self._row = 0

    def push(self, grey: np.ndarray) -> Iterator[Piece]:
        self._grey.append(grey)
        if len(self._grey) > BLOCK:
            first = self._number * BLOCK
            self._blocks.append(_Block(first, first + BLOCK, 0, self._submit(self._number, self._grey, False)))
            self._before = self._grey[-2]
            self._grey = self._grey[-1:]
            self._number += 1
            yield from self._ready()

    def finish(self) -> Iterator[Piece]:
        first = self._number * BLOCK
        total = first + len(self._grey)
        skipped = 0
        if len(self._grey) == 1 and self._before is not None:  # a single frame has no flow to repeat
            self._grey.insert(0, self._before)
            skipped = 1
        self._blocks.append(_Block(first, total, skipped, self._submit(self._number, self._grey, True)))
        yield from self._ready()
        if self._row == 0:
            yield self._piece()

    def _ready(self) -> Iterator[Piece]:
        while self._row * self._stride + self._window <= self._blocks[-1].after:
            yield self._piece()

    def _piece(self) -> Piece:
        start = self._row * self._stride
        while self._blocks[0].after <= start:
            self._blocks.popleft()
        needed = [block for block in self._blocks if block.first < start + self._window]
        blocks = [(block.first, block.skipped, block.flows) for block in needed]
        self._row += 1
        return Piece("flow", self._row - 1, FlowWindow(blocks, start, self._window))
