from __future__ import annotations

import numpy as np
import pytest
import torch

from wtal.data.synthetic.events import SnippetKind
from wtal.data.timebase import Timebase
from wtal.data.video import Instance, Video, VideoSet
from wtal.evaluation.snippet_errors import error_rates
from wtal.inference.frame_scores import VideoResult

GRID = Timebase(1.0, 1.0, 1.0)  # a snippet a second


def test_rates_against_loops(tmp_path) -> None:
    random = np.random.default_rng(3)
    videos, found = [], []
    counts: dict[str, list[bool]] = {name: [] for name in ("action", "rest", "core", "non_core", "context")}
    for number in range(6):
        size = int(random.integers(5, 30))
        start = int(random.integers(0, size - 3))
        end = int(random.integers(start + 1, size))
        instance = Instance(float(start), float(end), "a")
        video = Video(f"v{number}", "test", ("a",), GRID, (), instances=(instance,))
        kinds = random.integers(0, 5, size).astype(np.int8)
        np.save(tmp_path / f"v{number}.npy", kinds)
        scores = torch.from_numpy(random.random((size, 2)).astype(np.float32))
        videos.append(video)
        found.append(VideoResult(video, [], torch.zeros(2), scores))
        for t in range(size):
            fired, inside = bool(scores[t, 0] > 0.5), start <= t < end
            counts["action" if inside else "rest"].append(fired)
            for kind, name, where in (
                (SnippetKind.CORE, "core", True),
                (SnippetKind.PHASE, "non_core", True),
                (SnippetKind.CONTEXT, "context", False),
            ):
                if kinds[t] == kind and inside == where:
                    counts[name].append(fired)
    data = VideoSet("x", "own", ("a", "b"), tuple(videos), kinds=tmp_path)
    share = {name: float(np.mean(fired)) for name, fired in counts.items()}
    assert error_rates(data, found) == pytest.approx(
        {
            "false_negative": 1 - share["action"],
            "false_positive": share["rest"],
            **{name: share[name] for name in ("core", "non_core", "context")},
        }
    )


def test_without_kinds_or_snippets_nothing_is_made_up() -> None:
    video = Video("v", "test", ("a",), GRID, (), instances=(Instance(0.0, 4.0, "a"),))
    data = VideoSet("x", "own", ("a",), (video,))
    rates = error_rates(data, [VideoResult(video, [], torch.zeros(1), torch.ones(4, 1))])
    assert rates == {"false_negative": 0.0, "false_positive": None}
