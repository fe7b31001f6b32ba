"""What the post-processing benchmarks run on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TEST_VIDEOS = 212
CLASSES = 20

# Durations in seconds of the 212 test videos of THUMOS14: their quantiles at 0, 1/42, ... 1, from the annotation file.
DURATION_QUANTILES = (
    15.0, 28.1, 33.6, 41.1, 47.1, 55.7, 65.1, 70.4, 73.4, 85.2, 93.3, 98.9, 102.9, 110.0, 116.4, 120.0, 124.9, 128.9,
    138.6, 146.8, 153.2, 161.7, 169.9, 176.7, 180.4, 184.4, 192.6, 204.6, 207.8, 212.0, 219.0, 226.7, 233.9, 238.8,
    248.4, 283.5, 314.5, 357.5, 415.9, 538.1, 708.3, 898.4, 1673.4,
)  # fmt: skip


def durations() -> tuple[np.ndarray, str]:
    """Seconds of each THUMOS14 test video, and where they come from: the files of WTAL_TEST_DATA or the quantiles."""
    file = Path(os.environ.get("WTAL_TEST_DATA", "")) / "thumos14/actionformer/thumos14.json"
    if file.is_file():
        videos = json.loads(file.read_text())["database"].values()
        listed = [video["duration"] for video in videos if video["subset"].lower() == "test"]
        return np.array(listed), "durations from the annotation file"
    at = (np.arange(TEST_VIDEOS) + 0.5) / TEST_VIDEOS
    spread = np.interp(at, np.linspace(0, 1, len(DURATION_QUANTILES)), DURATION_QUANTILES)
    return np.random.default_rng(0).permutation(spread), "durations from quantiles"


def random_segments(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Segments of 1 to 64 s, log-uniform, 0.1 s of time for each, and scores; float32."""
    rng = np.random.default_rng(seed)
    centre, length = rng.random(count) * count / 10, np.exp2(rng.random(count) * 6)
    segments = np.stack([centre - length / 2, centre + length / 2], 1).astype(np.float32)
    scores = (rng.random(count) * rng.random(count)).astype(np.float32)
    return torch.from_numpy(segments), torch.from_numpy(scores)


def frame_scores(snippets: int, classes: int, smooth: int, rng: np.random.Generator, times: int = 1) -> np.ndarray:
    """Frame scores ``[T, C]`` in (0, 1), float32: noise, averaged over ``smooth`` snippets, ``times`` times over."""
    noise = rng.standard_normal((snippets + times * smooth, classes))
    for _ in range(times):
        total = noise.cumsum(0)
        noise = total[smooth:] - total[:-smooth]
    return (1 / (1 + np.exp(-2 * noise / noise.std()))).astype(np.float32)


class TestVideos:
    """Made-up scores for videos of the THUMOS14 test set's real lengths, and made-up ground truth.

    Ten thresholds find 14 different proposals a class in every 100 snippets of 0.64 s of smooth scores. In those of a
    trained CBP they find 6, in those of a trained VLP 22 (embedded benchmark, world 100), in noisy scores 54.

    Args:
        snippets_per_second: the grid.
        noisy: scores that jump from snippet to snippet, the hard case.
        batch: videos in each of ``batches``.

    Attributes:
        lengths: snippets of each video, ``[212]``.
        videos: frame scores ``[T, C]`` of each.
        video_scores: ``[212, C]``.
        batches: wtal's input, padded batches of 16 videos: scores ``[B, T, C]``, video scores, lengths.
        truth_rows: (video, class) ``[G, 2]``; truth_segments: snippets ``[G, 2]``; 16 instances a video.
    """

    __test__ = False  # pytest: not a test, for all its name

    def __init__(self, snippets_per_second: float, noisy: bool, batch: int = 16) -> None:
        rng = np.random.default_rng(1)
        lasting, self.source = durations()
        self.lengths = np.maximum(1, (lasting * snippets_per_second).astype(np.int64))
        seconds, times = (3, 1) if noisy else (9, 3)  # actions last seconds, whatever the grid
        smooth = round(seconds * snippets_per_second)
        self.videos = [frame_scores(int(length), CLASSES, smooth, rng, times) for length in self.lengths]
        self.video_scores = rng.random((len(self.videos), CLASSES), dtype=np.float32)
        self.batches = []
        for first in range(0, len(self.videos), batch):
            chosen = slice(first, first + batch)
            frames = [torch.from_numpy(video) for video in self.videos[chosen]]
            self.batches.append(
                (
                    torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),
                    torch.from_numpy(self.video_scores[chosen]),
                    torch.from_numpy(self.lengths[chosen]),
                )
            )
        video = np.repeat(np.arange(len(self.videos)), 16)
        self.truth_rows = np.stack([video, rng.integers(0, CLASSES, len(video))], 1)
        length = self.lengths[video]
        start = rng.random(len(video)) * length
        end = np.minimum(start + snippets_per_second * np.exp2(rng.random(len(video)) * 5), length)
        self.truth_segments = np.stack([start, end], 1)
