"""The synthetic benchmark: what it draws, what the features show, and that the same seed gives the same bytes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wtal.data.synthetic import DEFAULT, TRUE_SHAPES, Parameters
from wtal.data.synthetic.dataset import SyntheticVideo, class_names, make_video, video_ids
from wtal.data.synthetic.events import Events, SnippetKind, Span, draw_events
from wtal.data.synthetic.features import clip_features, i3d_features
from wtal.data.synthetic.parameters import (
    CLIPParameters,
    ControlParameters,
    EventParameters,
    I3DParameters,
    SizeParameters,
)
from wtal.data.synthetic.randomness import Purpose, ar1, generator
from wtal.data.synthetic.world import World, make_world
from wtal.errors import WtalError

SEED = 5
SMALL = replace(DEFAULT, size=replace(DEFAULT.size, i3d_dim=24, clip_dim=16))

GOLDEN_LENGTH = 144
GOLDEN_INSTANCES = [(4, 9, 7), (25, 32, 7), (82, 91, 7), (96, 110, 7), (139, 143, 7)]
GOLDEN_KINDS = "9ec08a51042021f8"
GOLDEN_TEXT = [0.018697, -0.102945, -0.005817, -0.088954]
GOLDEN_I3D = [
    [-0.4677, -1.80133, -0.24556, 2.2892],
    [-0.23885, 0.95173, -0.19883, -0.53838],
    [-0.98022, -0.06459, -1.21261, -0.42546],
    [-2.48225, 1.43799, -0.09161, -1.20118],
]
GOLDEN_CLIP = [
    [-0.05598, 0.18155, -0.05107, -0.1097],
    [-0.04131, -0.01285, 0.13229, -0.00194],
    [-0.05352, -0.09885, -0.01271, -0.1944],
    [-0.00074, -0.03905, -0.04034, -0.19933],
]
GOLDEN_I3D_SUM = -51.1118
GOLDEN_CLIP_SUM = 0.17746


def videos(count: int, parameters: Parameters = SMALL, seed: int = SEED) -> tuple[World, list[SyntheticVideo]]:
    resolved = parameters.resolved()
    world = make_world(seed, parameters.size.classes, resolved)
    return world, [make_video(seed, f"video_{index}", world, resolved) for index in range(count)]


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# ---- determinism ----------------------------------------------------------------------------------------------


def test_version_1_is_frozen() -> None:
    """The default world and one video of it, written down. If this fails, GENERATOR_VERSION has to change.

    Integers are compared exactly; floats with a tolerance and not by a hash of rounded values, because a value close
    to a rounding boundary would make a last-bit difference between processors into another hash.
    """
    resolved = DEFAULT.resolved()
    world = make_world(0, 10, resolved)
    video = make_video(0, "synthetic_train_00000", world, resolved)
    assert [(span.start, span.end, span.label) for span in video.instances] == GOLDEN_INSTANCES
    assert video.events.num_snippets == GOLDEN_LENGTH
    assert hashlib.sha256(video.events.kinds.tobytes()).hexdigest()[:16] == GOLDEN_KINDS
    np.testing.assert_allclose(world.clip.text[3, ::32], GOLDEN_TEXT, rtol=0, atol=1e-4)
    np.testing.assert_allclose(video.i3d[::40, ::80], GOLDEN_I3D, rtol=0, atol=1e-4)
    np.testing.assert_allclose(video.clip[::40, ::40], GOLDEN_CLIP, rtol=0, atol=1e-4)
    # All of it, through sums that any change of a feature moves.
    weights = np.cos(np.arange(video.i3d.size, dtype=np.float64)).reshape(video.i3d.shape)
    np.testing.assert_allclose((video.i3d * weights).sum(), GOLDEN_I3D_SUM, rtol=0, atol=1e-2)
    weights = np.cos(np.arange(video.clip.size, dtype=np.float64)).reshape(video.clip.shape)
    np.testing.assert_allclose((video.clip * weights).sum(), GOLDEN_CLIP_SUM, rtol=0, atol=1e-3)


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    program = (
        "import sys; from dataclasses import replace\n"
        "from wtal.data.synthetic import DEFAULT, synthetic_dataset\n"
        "size = replace(DEFAULT.size, training_videos=2, test_videos=1)\n"
        "for layout in ('wtalc', 'basnet', 'actionformer'):\n"
        "    synthetic_dataset(3, sys.argv[1] + '/' + layout, layout, replace(DEFAULT, size=size))\n"
    )
    for name, threads in (("one", "1"), ("two", "2")):
        environment = {**os.environ, "PYTHONHASHSEED": threads, "OMP_NUM_THREADS": threads}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / name)], env=environment, check=True)
    contents = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
            if path.is_file()
        }
        for name in ("one", "two")
    ]
    assert len(contents[0]) > 30
    assert contents[0] == contents[1]


def test_a_video_depends_on_its_name_and_the_seed_alone() -> None:
    resolved = SMALL.resolved()
    world = make_world(SEED, 10, resolved)
    first = make_video(SEED, "a", world, resolved)
    make_video(SEED, "b", world, resolved)
    again = make_video(SEED, "a", make_world(SEED, 10, resolved), resolved)
    np.testing.assert_array_equal(first.i3d, again.i3d)
    np.testing.assert_array_equal(first.clip, again.clip)
    for seed, name in ((SEED, "b"), (SEED + 1, "a")):
        assert not np.array_equal(first.i3d[:100], make_video(seed, name, world, resolved).i3d[:100])
    more = replace(DEFAULT, size=replace(DEFAULT.size, training_videos=200))
    assert set(video_ids(DEFAULT)) <= set(video_ids(more))


def test_widths_and_controls_leave_the_events_alone() -> None:
    control = ControlParameters(clip_without_action=True, i3d_with_scene=True, no_core_gap=True, difficulty=2.0)
    wide = replace(SMALL.size, i3d_dim=64, clip_dim=32)
    _, plain = videos(5)
    for other in (replace(SMALL, control=control), replace(SMALL, size=wide)):
        for one, two in zip(plain, videos(5, other)[1], strict=True):
            np.testing.assert_array_equal(one.events.kinds, two.events.kinds)
            assert one.events.actions == two.events.actions


def test_streams_differ() -> None:
    streams = [(0, Purpose.WORLD, ""), (1, Purpose.WORLD, ""), (0, Purpose.I3D, ""), (0, Purpose.I3D, "a")]
    draws = [tuple(generator(*stream).integers(2**62, size=2)) for stream in [*streams, (2**32, Purpose.I3D, "a")]]
    assert len(set(draws)) == len(draws)
    with pytest.raises(WtalError, match="seed is -1"):
        generator(-1, Purpose.WORLD)


# ---- events ---------------------------------------------------------------------------------------------------


def check_events(events: Events, instances: list[Span], num_snippets: int) -> None:
    """Everything that must hold between a video's events and the kinds of its snippets."""
    kinds = events.kinds
    assert kinds.shape == (num_snippets,)
    assert kinds.dtype == np.int8
    acting = np.zeros(num_snippets, dtype=bool)
    core = np.zeros(num_snippets, dtype=bool)
    assert [Span(action.start, action.end, action.label) for action in events.actions] == instances
    for action in events.actions:
        assert action.start <= action.core_start < action.core_end <= action.end
        assert action.gain > 0
        acting[action.start : action.end] = True
        core[action.core_start : action.core_end] = True
    np.testing.assert_array_equal(kinds == SnippetKind.CORE, core)
    np.testing.assert_array_equal(kinds == SnippetKind.PHASE, acting & ~core)
    context = np.concatenate([context.snippets for context in events.contexts] or [np.zeros(0, int)])
    distractors = np.concatenate([np.arange(d.start, d.end) for d in events.distractors] or [np.zeros(0, int)])
    assert len(np.unique(context)) == len(context)  # no snippet is context twice
    np.testing.assert_array_equal(np.flatnonzero(kinds == SnippetKind.CONTEXT), np.sort(context))
    np.testing.assert_array_equal(np.flatnonzero(kinds == SnippetKind.DISTRACTOR), np.sort(distractors))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_events_around_any_instances(data: st.DataObject) -> None:
    """Overlapping, touching, one snippet long, as long as the video: as real annotations have them."""
    num_snippets = data.draw(st.integers(1, 80))
    instances = []
    for _ in range(data.draw(st.integers(0, 6))):
        start = data.draw(st.integers(0, num_snippets - 1))
        instances.append(Span(start, data.draw(st.integers(start + 1, num_snippets)), data.draw(st.integers(0, 3))))
    labels = data.draw(st.lists(st.integers(0, 3), max_size=2))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    pace = data.draw(st.sampled_from([0.5, 1.0, 4.8]))
    events = draw_events(num_snippets, instances, 4, EventParameters(), rng, labels=labels, pace=pace, abundance=3.0)
    check_events(events, instances, num_snippets)
    assert events.labels == tuple(sorted({span.label for span in instances} | set(labels)))
    world = make_world(0, 4, SMALL)
    for features in (
        i3d_features(events, world.i3d, SMALL.i3d, rng, pace),
        clip_features(events, world.clip, SMALL.clip, rng),
    ):
        assert np.isfinite(features).all()


def test_benchmark_videos() -> None:
    """Lengths, bounds and gaps of instances; and over many videos the rates that the parameters promise."""
    p, size = SMALL.events, SMALL.size
    counts = []
    durations = []
    kinds = []
    for video in videos(250)[1]:
        spans = list(video.instances)
        assert size.min_snippets <= video.events.num_snippets <= size.max_snippets
        check_events(video.events, spans, video.events.num_snippets)
        assert spans == sorted(spans, key=lambda span: span.start)
        assert spans[0].start >= 0
        assert spans[-1].end <= video.events.num_snippets
        assert all(before.end < after.start for before, after in pairwise(spans))
        assert set(video.events.labels) == {span.label for span in spans}
        assert len(video.events.labels) in (1, 2)
        for action in video.events.actions:
            duration = action.end - action.start
            assert p.duration_min <= duration <= p.duration_max
            # Rounded to a whole snippet, and at least one.
            assert p.core_min * duration - 0.5 <= action.core_end - action.core_start <= p.core_max * duration + 0.5
        counts.append(len(spans))
        durations += [span.end - span.start for span in spans]
        kinds.append(video.events.kinds)
    assert 3.6 < np.mean(counts) < 4.3  # 1.15 classes of 1 + 2.5 instances, a few of which find no place
    assert 8 <= np.median(durations) <= 10
    fractions = np.bincount(np.concatenate(kinds), minlength=5) / sum(map(len, kinds))
    np.testing.assert_allclose(fractions, [0.38, 0.11, 0.26, 0.155, 0.095], atol=0.03)


# ---- features -------------------------------------------------------------------------------------------------


def test_shapes_and_norms() -> None:
    world, made = videos(6, DEFAULT)
    assert world.clip.text.shape == (10, 128)
    np.testing.assert_allclose(np.linalg.norm(world.clip.text, axis=1), 1.0, atol=1e-6)
    for video in made:
        length = video.events.num_snippets
        assert video.i3d.shape == (length, 256)
        assert video.clip.shape == (length, 128)
        assert {video.i3d.dtype, video.clip.dtype, world.clip.text.dtype} == {np.dtype(np.float32)}
        np.testing.assert_allclose(np.linalg.norm(video.clip, axis=1), 1.0, atol=1e-5)
        assert 1.0 < video.i3d.std() < 1.5
        assert np.isfinite(video.i3d).all()


def test_true_shapes() -> None:
    _, (video,) = videos(1, replace(DEFAULT, size=TRUE_SHAPES))
    assert 800 <= len(video.i3d) <= 1200
    assert video.i3d.shape[1] == 2048
    assert video.clip.shape == (len(video.i3d), 512)


def test_noise_has_norm_one_and_the_correlation_asked_for() -> None:
    noise = ar1(np.random.default_rng(0), 4000, 50, 0.6).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1).mean(), 1.0, atol=0.02)
    np.testing.assert_allclose(noise[:500].std() / noise[-500:].std(), 1.0, atol=0.05)  # stationary from the start
    for lag in (1, 2):
        np.testing.assert_allclose((noise[lag:] * noise[:-lag]).sum(1).mean(), 0.6**lag, atol=0.03)


def without_chance(control: ControlParameters) -> Parameters:
    """Features that follow from the events: no noise, no motion, no jitter."""
    return replace(
        SMALL,
        i3d=replace(SMALL.i3d, motion=0.0),
        clip=replace(SMALL.clip, scene_jitter=0.0),
        control=replace(control, difficulty=0.0),
    ).resolved()


def expected_snippet(events: Events, world: World, t: int, control: ControlParameters) -> tuple[np.ndarray, np.ndarray]:
    """One snippet by the recipe's words, before scaling: the I3D-like and the CLIP-like sum of what it shows."""
    x = np.zeros(world.i3d.core.shape[1])
    y = 1.5 * world.clip.image_mean.astype(float)
    acting = any(a.start <= t < a.end for a in events.actions)
    for a in events.actions:
        if not a.start <= t < a.end:
            continue
        in_core = a.core_start <= t < a.core_end
        phase = 0 if t < a.core_start else 1
        if in_core or control.no_core_gap:
            x += a.gain * world.i3d.core[a.label]
        else:
            x += 0.55 * a.gain * world.i3d.phase[a.label, phase]
        x += 0.5 * (1.0 if control.i3d_with_scene else 0.25) * world.i3d.scene[a.label]
        y += (1.0 if control.clip_without_action else 0.6) * world.clip.scene[a.label]
        if not control.clip_without_action:
            y += a.gain * (1.0 if in_core or control.no_core_gap else 0.8) * world.clip.action[a.label]
    context = [context.label for context in events.contexts if t in context.snippets]
    if not acting:
        for label in events.labels:  # the venue is seen in the whole video; in context it is the context's own 1.0
            y += (0.0 if label in context else 0.3 / len(events.labels)) * world.clip.scene[label]
    for label in context:
        x += (1.0 if control.i3d_with_scene else 0.25) * world.i3d.scene[label]
        y += world.clip.scene[label]
    for d in events.distractors:
        if d.start <= t < d.end:
            x += 0.9 * (world.i3d.distractors[d.prototype] if d.phase is None else world.i3d.shared_phase[d.phase])
            y += 0.9 * world.clip.distractors[d.prototype]
    return x, y


@pytest.mark.parametrize(
    "control",
    [
        ControlParameters(),
        ControlParameters(clip_without_action=True),
        ControlParameters(i3d_with_scene=True),
        ControlParameters(no_core_gap=True),
    ],
    ids=["plain", "clip_without_action", "i3d_with_scene", "no_core_gap"],
)
def test_features_are_the_sum_of_what_happens(control: ControlParameters) -> None:
    parameters = without_chance(control)
    world = make_world(SEED, 10, parameters)
    kinds = set()
    for index in range(8):
        video = make_video(SEED, f"video_{index}", world, parameters)
        for t in range(video.events.num_snippets):
            x, y = expected_snippet(video.events, world, t, control)
            np.testing.assert_allclose(video.i3d[t], x * 24**0.5 / 1.5, atol=1e-5)
            np.testing.assert_allclose(video.clip[t], y / np.linalg.norm(y), atol=1e-5)
        kinds |= set(video.events.kinds.tolist())
    assert kinds == set(SnippetKind)


def test_prototypes() -> None:
    """Unit norm; pairs of classes share a part; phases are mostly alike across classes and little like their core."""
    world = make_world(0, 10, replace(DEFAULT, size=replace(DEFAULT.size, i3d_dim=4096, clip_dim=4096)))
    for vectors in (*vars(world.i3d).values(), *vars(world.clip).values()):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=-1), 1.0, atol=1e-5)
    core, phase = world.i3d.core, world.i3d.phase
    assert core[0] @ core[1] == pytest.approx(0.4, abs=0.07)
    assert core[1] @ core[2] == pytest.approx(0.0, abs=0.07)
    assert core[4] @ phase[4, 0] == pytest.approx(0.25, abs=0.07)
    assert phase[4, 1] @ phase[7, 1] == pytest.approx(0.6 * (1 - 0.25**2), abs=0.07)
    assert phase[4, 0] @ phase[4, 1] == pytest.approx(0.25**2, abs=0.07)
    names = world.clip.text @ (world.clip.action + world.clip.scene).T
    assert (names.argmax(axis=1) == np.arange(10)).all()


def test_clip_sees_context_and_i3d_does_not() -> None:
    """The phenomenon that the benchmark is for, on the features as they come."""
    world, made = videos(60, DEFAULT)
    clip: dict[int, list[float]] = {kind: [] for kind in SnippetKind}
    i3d: dict[int, list[float]] = {kind: [] for kind in SnippetKind}
    for video in made:
        label = video.events.labels[0]
        for kind in SnippetKind:
            chosen = video.events.kinds == kind
            clip[kind] += (video.clip[chosen] @ world.clip.text[label]).tolist()
            i3d[kind] += (video.i3d[chosen] @ world.i3d.core[label]).tolist()
    of_clip = [float(np.mean(clip[kind])) for kind in SnippetKind]
    of_i3d = [float(np.mean(i3d[kind])) for kind in SnippetKind]
    background, _, context, phase, core = of_clip
    assert context - background > 0.5 * (core - background)
    assert phase - background > 0.7 * (core - background)
    background, _, context, phase, core = of_i3d
    assert abs(context - background) < 0.1 * (core - background)
    assert phase - background < 0.3 * (core - background)


# ---- parameters -----------------------------------------------------------------------------------------------


def test_class_names_are_sorted_and_unique() -> None:
    for count in (1, 10, 20, 21, 200):
        names = class_names(count)
        assert len(set(names)) == count
        assert list(names) == sorted(names)


def test_resolved_parameters_have_no_controls_left() -> None:
    assert DEFAULT.resolved() == DEFAULT
    hard = replace(DEFAULT, control=ControlParameters(difficulty=2.0)).resolved()
    assert hard.control == ControlParameters()
    assert (hard.i3d.noise, hard.clip.noise) == (2 * I3DParameters().noise, 2 * CLIPParameters().noise)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"classes": 0}, r"size\.classes is 0: expected at least 1"),
        ({"i3d_dim": 7}, r"size\.i3d_dim is 7: expected an even number"),
        ({"min_snippets": 200}, r"size\.max_snippets is 192: expected not below min_snippets \(200\)"),
        ({"min_snippets": 40}, r"events\.duration_max is 40: expected .* \(40 snippets\)"),
    ],
)
def test_impossible_sizes_are_refused(size: dict[str, int], message: str) -> None:
    with pytest.raises(WtalError, match=message):
        Parameters(size=SizeParameters(**size))
