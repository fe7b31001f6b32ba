"""Generates the features of the two extractors from a video's events."""

from __future__ import annotations

import numpy as np

from wtal.data.synthetic.events import Events, SnippetKind
from wtal.data.synthetic.parameters import CLIPParameters, I3DParameters, RealParameters
from wtal.data.synthetic.randomness import ar1, directions, unit
from wtal.data.synthetic.world import MOTION_DIRECTIONS, CLIPWorld, I3DWorld

DRIFT_CORRELATION = 0.98


def i3d_features(
    events: Events,
    world: I3DWorld,
    p: I3DParameters,
    rng: np.random.Generator,
    pace: float = 1.0,
    real: RealParameters | None = None,
) -> np.ndarray:
    """I3D-like features ``[T, D]`` float32, about unit variance per dimension.

    Args:
        events: the video.
        world: the prototypes.
        p: resolved strengths.
        rng: the video's random stream.
        pace: see :func:`~wtal.data.synthetic.events.draw_events`; a finer grid has slower noise.
        real: the additional parameters of version 2; None is version 1.
    """
    nuisance = _nuisance(events.num_snippets, world.drift, p, rng, pace)  # [T, D]
    # Version 1 adds in place: another order of additions would round differently.
    x = nuisance if real is None else np.zeros_like(nuisance)
    gain = _video_gain(real, rng)
    for action in events.actions:
        c, strength = action.label, gain * action.gain
        x[action.start : action.core_start] += strength * p.phase * world.phase[c, 0]
        x[action.core_start : action.core_end] += strength * p.core * world.core[c]
        x[action.core_end : action.end] += strength * p.phase * world.phase[c, 1]
        x[action.start : action.end] += _motion(world, p, rng) + p.scene_in_action * world.scene[c]
    for context in events.contexts:
        x[context.snippets] += p.scene * world.scene[context.label]
    for event in events.distractors:
        looks = world.distractors[event.prototype] if event.phase is None else world.shared_phase[event.phase]
        x[event.start : event.end] += p.distractor * looks + _motion(world, p, rng)
    if real is not None:
        x = _in_real_video(x, nuisance, real, rng, pace)
        for c in events.labels:
            x += _venue(real.venue, real, rng) * world.scene[c]
    x *= np.float32(x.shape[1] ** 0.5 / p.norm)
    return x


def clip_features(
    events: Events,
    world: CLIPWorld,
    p: CLIPParameters,
    rng: np.random.Generator,
    pace: float = 1.0,
    real: RealParameters | None = None,
) -> np.ndarray:
    """CLIP-like features ``[T, D]`` float32, unit norm; arguments as in :func:`i3d_features`."""
    nuisance = _nuisance(events.num_snippets, world.drift, p, rng, pace)  # [T, D]
    y = nuisance if real is None else np.zeros_like(nuisance)
    gain = _video_gain(real, rng)
    venue = 0.0  # per class
    if real is None:
        y += p.modality_gap * world.image_mean
        venue = p.scene_elsewhere / max(1, len(events.labels))
        for c in events.labels:
            y[events.kinds < SnippetKind.PHASE] += venue * world.scene[c]
    for action in events.actions:
        c, strength = action.label, gain * action.gain
        y[action.start : action.end] += strength * p.phase * world.action[c] + p.scene_in_action * world.scene[c]
        y[action.core_start : action.core_end] += strength * (p.core - p.phase) * world.action[c]
    for context in events.contexts:
        c = context.label
        strength = p.scene_in_context - (venue if c in events.labels else 0.0)  # the venue was already added
        jitter = rng.uniform(1.0 - p.scene_jitter, 1.0 + p.scene_jitter, (len(context.snippets), 1))
        y[context.snippets] += (strength * jitter).astype(np.float32) * world.scene[c]
    for event in events.distractors:
        y[event.start : event.end] += p.distractor * world.distractors[event.prototype]
    if real is not None:
        y = _in_real_video(y, nuisance, real, rng, pace)
        y += p.modality_gap * world.image_mean
        for c in events.labels:
            y += _venue(p.scene_elsewhere, real, rng) * world.scene[c]
    return unit(y)


def _video_gain(real: RealParameters | None, rng: np.random.Generator) -> float:
    """The factor on all actions of a video; version 1 has none and draws nothing."""
    return 1.0 if real is None else float(np.exp(real.video_gain_sigma * rng.standard_normal()))


def _venue(strength: float, real: RealParameters, rng: np.random.Generator) -> np.float32:
    """The strength of a class's scene in a whole video of version 2."""
    return np.float32(strength * np.exp(real.venue_sigma * rng.standard_normal()))


def _in_real_video(
    x: np.ndarray, nuisance: np.ndarray, real: RealParameters, rng: np.random.Generator, pace: float
) -> np.ndarray:
    """The events ``x`` ``[T, D]`` blurred in time, with ``nuisance`` and the second, slow noise of version 2."""
    x = _blurred(x, real.blur * pace)
    x += nuisance
    x += np.float32(real.slow_noise) * ar1(rng, len(x), x.shape[1], real.slow_correlation ** (1.0 / pace))
    return x


def _blurred(x: np.ndarray, decay: float) -> np.ndarray:
    """``[T, D]`` averaged over time; the weights fall by a factor of e every ``decay`` snippets on each side."""
    if decay <= 0:
        return x
    reach = min(len(x) - 1, int(np.ceil(6 * decay)))
    weights = np.exp(-np.abs(np.arange(-reach, reach + 1)) / decay)
    weights /= weights.sum()
    padded = np.pad(x, ((reach, reach), (0, 0)))
    out = np.zeros_like(x)
    for shift, weight in enumerate(weights.astype(np.float32)):
        out += weight * padded[shift : shift + len(x)]
    return out


def _motion(world: I3DWorld, p: I3DParameters, rng: np.random.Generator) -> np.ndarray:
    """One event's movement: a random direction ``[D]`` in the motion subspace."""
    return p.motion * (directions(rng, MOTION_DIRECTIONS) @ world.motion)


def _nuisance(
    num_snippets: int,
    drift: np.ndarray,
    p: I3DParameters | CLIPParameters,
    rng: np.random.Generator,
    pace: float,
) -> np.ndarray:
    """The part without information on the action, ``[T, D]`` float32: noise, the video's offset, slow drift."""
    count, dim = drift.shape
    out = ar1(rng, num_snippets, dim, p.noise_correlation ** (1.0 / pace))
    out *= np.float32(p.noise)
    out += p.offset * directions(rng, dim)
    amount = np.float32(p.drift * count**0.5) * ar1(rng, num_snippets, count, DRIFT_CORRELATION ** (1.0 / pace))
    out += amount @ drift
    return out
