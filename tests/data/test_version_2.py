"""Version 2 of the generator: its figures beside those of real features, and the figures by independent definitions."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.open import BENCHMARKS
from wtal.data.synthetic import DEFAULT, VERSION_2, synthetic_dataset
from wtal.data.synthetic.dataset import make_video, video_ids
from wtal.data.synthetic.events import draw_real_instances
from wtal.data.synthetic.features import _blurred
from wtal.data.synthetic.parameters import ControlParameters, Parameters, RealParameters
from wtal.data.synthetic.randomness import ar1
from wtal.data.synthetic.realism import Measured, _auc, _distance, describe, describe_zero_shot
from wtal.data.synthetic.world import make_world


def figures(parameters: Parameters, world: int, clip: bool = False) -> dict[str, float]:
    resolved = parameters.resolved()
    prototypes = make_world(world, parameters.size.classes, resolved)
    made = [
        make_video(world, name, prototypes, resolved) for name, subset in video_ids(parameters) if subset == "train"
    ]
    videos = [Measured(v.clip if clip else v.i3d, tuple((s.start, s.end, s.label) for s in v.instances)) for v in made]
    return describe(videos) | (describe_zero_shot(videos, prototypes.clip.text) if clip else {})


# Real features of THUMOS14 (docs/synthetic.md), and how far version 2 may be from them.
REAL = {
    "length of an instance, 10 %": (2, 0),
    "length of an instance, 50 %": (5, 1),
    "length of an instance, 90 %": (14, 3),
    "gap between instances, 50 %": (3, 1),
    "share of action in a video, 50 %": (0.226, 0.12),
    "gap between instances, 90 %": (27, 12),
    "share of action in a video, 90 %": (0.582, 0.08),
    "variance between videos": (0.286, 0.08),
    "effective dimension": (72, 20),
    "effective dimension within videos": (92, 15),
    "autocorrelation in background, lag 1": (0.74, 0.04),
    "autocorrelation in background, lag 2": (0.57, 0.04),
    "autocorrelation in background, lag 4": (0.388, 0.04),
    "autocorrelation in background, lag 8": (0.218, 0.04),
    "autocorrelation in background, lag 16": (0.0995, 0.04),
    "autocorrelation in background, lag 32": (0.0258, 0.04),
    "AUC within a video, probe of any action": (0.791, 0.09),
    "AUC within a video, probe of the class": (0.786, 0.15),
    "class right from the mean of background": (0.683, 0.12),
    "class right from the mean of action": (0.891, 0.1),
    "score, first and last snippet of an instance": (0.861, 0.2),
    "score, 1 away": (0.668, 0.3),
    "score, 2 away": (0.39, 0.22),
    "score, 3 to 4 away": (0.227, 0.22),
    "score, 5 to 8 away": (0.124, 0.22),
    "score, 9 to 16 away": (0.0601, 0.18),
}


def test_figures_are_near_the_real_ones() -> None:
    found = figures(VERSION_2, 0)
    assert {name: found[name] for name in REAL} == {
        name: pytest.approx(value, abs=margin) for name, (value, margin) in REAL.items()
    }


def test_version_1_lacks_what_version_2_has() -> None:
    """Were the margins so wide that version 1 passed, the test above would say nothing."""
    found = figures(DEFAULT, 0)
    outside = {name for name, (value, margin) in REAL.items() if abs(found[name] - value) > margin}
    assert {
        "class right from the mean of background",
        "score, 1 away",
        "AUC within a video, probe of the class",
    } <= outside


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.1, 3.0), st.floats(0.0, 1.0), st.floats(0.5, 10.0))
def test_instances_lie_apart_inside_the_video(seed: int, shape: float, clustered: float, gap: float) -> None:
    real = RealParameters(count_shape=shape, clustered=clustered, gap_mean=gap)
    size = VERSION_2.size
    length, found = draw_real_instances(size, VERSION_2.events, real, np.random.default_rng(seed))
    assert size.min_snippets <= length <= size.max_snippets
    assert found
    assert found[0].start >= 0
    assert found[-1].end <= length
    assert all(before.end < after.start for before, after in pairwise(found))
    low, high = VERSION_2.events.duration_min, VERSION_2.events.duration_max
    assert all(low <= span.end - span.start <= high for span in found)


@pytest.mark.parametrize(("length", "decay"), [(1, 1.6), (2, 0.3), (9, 4.0), (40, 1.6), (12, 0.0)])
def test_blur_is_a_weighted_mean_over_time(length: int, decay: float) -> None:
    x = np.random.default_rng(length).standard_normal((length, 3)).astype(np.float32)
    if decay == 0:
        np.testing.assert_array_equal(_blurred(x, decay), x)
        return
    reach = min(length - 1, int(np.ceil(6 * decay)))
    total = sum(np.exp(-abs(d) / decay) for d in range(-reach, reach + 1))
    expected = [
        sum(np.exp(-abs(s - t) / decay) / total * x[s].astype(float) for s in range(length) if abs(s - t) <= reach)
        for t in range(length)
    ]
    np.testing.assert_allclose(_blurred(x, decay), expected, atol=1e-5)


def test_versions_are_told_apart_on_disk(tmp_path: Path) -> None:
    few = {"training_videos": 2, "test_videos": 1}
    for number, parameters in ((1, DEFAULT), (2, VERSION_2)):
        folder = tmp_path / str(number)
        synthetic_dataset(0, folder, parameters=replace(parameters, size=replace(parameters.size, **few)))
        described = json.loads((folder / "wtal-synthetic.json").read_text())
        assert described["generator_version"] == number
        assert ("real" in described["parameters"]) == (number == 2)
    assert {name: one.version for name, one in BENCHMARKS.items() if one.version != 1} == {
        name: 2 for name in BENCHMARKS if name.startswith("version-2")
    }


def test_controls_and_difficulty_reach_version_2() -> None:
    hard = replace(VERSION_2, control=ControlParameters(difficulty=2.0)).resolved()
    assert hard.version == 2
    assert hard.real is not None
    assert VERSION_2.real is not None
    assert hard.real.slow_noise == 2 * VERSION_2.real.slow_noise
    assert VERSION_2.resolved() == VERSION_2


def test_auc_and_distance_by_their_definitions() -> None:
    random = np.random.default_rng(1)
    for length in (3, 20, 57):
        mask = random.random(length) < 0.3
        mask[0], mask[-1] = True, False
        score = random.standard_normal(length)
        wins = [a > b for a in score[mask] for b in score[~mask]]
        assert _auc(score, mask) == pytest.approx(np.mean(wins))
        expected = [min(abs(t - s) for s in np.flatnonzero(mask)) for t in range(length)]
        np.testing.assert_array_equal(_distance(mask), expected)


def test_figures_of_features_that_are_known() -> None:
    """AR(1) noise with an action that stands out by twice its deviation along one direction."""
    random = np.random.default_rng(3)
    videos = []
    for number in range(40):
        x = ar1(random, 300, 8, 0.5) * 8**0.5
        spans = tuple((start, start + 10, number % 2) for start in range(20, 280, 40))
        for start, end, label in spans:
            x[start:end, label] += 2.0
        videos.append(Measured(x, spans))
    found = describe(videos)
    assert found["length of an instance, 50 %"] == 10
    assert found["gap between instances, 50 %"] == 30
    assert found["share of action in a video, 50 %"] == pytest.approx(70 / 300)
    for lag in (1, 2, 4):
        assert found[f"autocorrelation in background, lag {lag}"] == pytest.approx(0.5**lag, abs=0.02)
    assert found["AUC within a video, probe of the class"] == pytest.approx(0.921, abs=0.01)  # Phi(2 / sqrt(2))
    assert found["class right from the mean of background"] < 0.75  # chance is a half
    assert found["class right from the mean of action"] > 0.95
    assert found["score, 1 away"] == pytest.approx(0.0, abs=0.1)
    assert found["score, first and last snippet of an instance"] == pytest.approx(1.0, abs=0.1)


def test_what_a_text_detects_by_its_definition() -> None:
    random = np.random.default_rng(4)
    text = random.standard_normal((3, 5))
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    videos = [
        Measured(random.standard_normal((30, 5)), ((3, 9, number % 3), (12, 20, (number + 1) % 3)))
        for number in range(6)
    ]
    areas, missed, detected, right = [], [], [], 0
    cosines = [[[float(row @ one) / float(np.linalg.norm(row)) for one in text] for row in v.features] for v in videos]
    level = [np.mean([row[c] for video in cosines for row in video]) for c in range(3)]
    for video, cosine in zip(videos, cosines, strict=True):
        present = {label for _, _, label in video.instances}
        means = [np.mean([row[c] for row in cosine]) - level[c] for c in range(3)]
        right += max(range(3), key=lambda c: means[c]) in present
        for label in present:
            own = [any(s <= t < e and c == label for s, e, c in video.instances) for t in range(30)]
            score = [row[label] for row in cosine]
            half = (min(score) + max(score)) / 2
            inside = [s for s, is_own in zip(score, own, strict=True) if is_own]
            outside = [s for s, is_own in zip(score, own, strict=True) if not is_own]
            areas.append(np.mean([a > b for a in inside for b in outside]))
            missed.append(np.mean([s <= half for s in inside]))
            detected.append(np.mean([s > half for s in outside]))
    assert describe_zero_shot(videos, text) == {
        "AUC within a video, cosine with the text": pytest.approx(np.mean(areas)),
        "AUC within a video, cosine with the text, lowest tenth": pytest.approx(np.percentile(areas, 10)),
        "class right from the mean cosine": pytest.approx(right / 6),
        "action that the cosine misses": pytest.approx(np.mean(missed)),
        "other snippets that the cosine detects": pytest.approx(np.mean(detected)),
    }


def test_clip_like_features_are_as_hard_as_the_others() -> None:
    """Version 1's are easier than its I3D-like ones in every video: there VLP after B is far above CBP."""
    similar = {
        "AUC within a video, probe of the class": 0.06,
        "AUC within a video, probe of the class, lowest tenth": 0.1,
        "variance between videos": 0.08,
        "autocorrelation in background, lag 1": 0.08,
        "autocorrelation in background, lag 4": 0.06,
        "autocorrelation in background, lag 16": 0.05,
    }
    i3d, clip = figures(VERSION_2, 0), figures(VERSION_2, 0, clip=True)
    assert {name: clip[name] for name in similar} == {
        name: pytest.approx(i3d[name], abs=margin) for name, margin in similar.items()
    }
    before = figures(DEFAULT, 0, clip=True)
    assert before["AUC within a video, probe of the class, lowest tenth"] > 0.9
    # The premise of the method: the text misses little of the action, and detects much of the rest.
    assert clip["action that the cosine misses"] < 0.25
    assert clip["other snippets that the cosine detects"] > 0.35
