"""The prototypes that all videos of one seed share: each class in I3D-like, CLIP-like and text features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wtal.data.synthetic.parameters import Parameters
from wtal.data.synthetic.randomness import Purpose, directions, generator, unit

MOTION_DIRECTIONS = 4
DRIFT_DIRECTIONS = 6


@dataclass(frozen=True)
class I3DWorld:
    """Prototypes of the I3D-like features, unit norm, float32.

    Attributes:
        core: ``[C, D]`` the discriminative middle of each class.
        phase: ``[C, 2, D]`` onset and offset of each class.
        shared_phase: ``[2, D]`` the common part of the onsets, and of the offsets, of all classes.
        motion: ``[4, D]`` the subspace of motion in general.
        scene: ``[C, D]`` the usual scene of each class.
        distractors: ``[N, D]`` other events.
        drift: ``[6, D]`` directions of slow change, e.g. of light.
    """

    core: np.ndarray
    phase: np.ndarray
    shared_phase: np.ndarray
    motion: np.ndarray
    scene: np.ndarray
    distractors: np.ndarray
    drift: np.ndarray


@dataclass(frozen=True)
class CLIPWorld:
    """Prototypes of the CLIP-like features, unit norm, float32.

    Attributes:
        action: ``[C, D]`` the action of each class, core and phases alike.
        scene: ``[C, D]`` the usual scene of each class.
        distractors: ``[N, D]`` other events.
        image_mean: ``[D]`` the constant vector in all images (modality gap).
        drift: ``[6, D]`` directions of slow change.
        text: ``[C, D]`` the text feature of each class.
    """

    action: np.ndarray
    scene: np.ndarray
    distractors: np.ndarray
    image_mean: np.ndarray
    drift: np.ndarray
    text: np.ndarray


@dataclass(frozen=True)
class World:
    """The I3D-like and the CLIP-like prototypes of one world."""

    i3d: I3DWorld
    clip: CLIPWorld


def make_world(seed: int, num_classes: int, parameters: Parameters) -> World:
    """Draw the prototypes of one seed. ``parameters`` must be resolved (:meth:`Parameters.resolved`)."""
    rng = generator(seed, Purpose.WORLD)
    return World(_i3d_world(rng, num_classes, parameters), _clip_world(rng, num_classes, parameters))


def _i3d_world(rng: np.random.Generator, num_classes: int, parameters: Parameters) -> I3DWorld:
    dim, p = parameters.size.i3d_dim, parameters.i3d
    pair = directions(rng, (num_classes + 1) // 2, dim)[np.arange(num_classes) // 2]  # [C, D]
    core = _mix(directions(rng, num_classes, dim), pair, p.group)
    shared = directions(rng, 2, dim)
    specific = directions(rng, num_classes, 2, dim)
    ambiguous = _mix(specific, shared[None], p.phase_shared)  # [C, 2, D]
    return I3DWorld(
        core=core,
        phase=_mix(ambiguous, core[:, None], p.phase_class**2),
        shared_phase=shared,
        motion=directions(rng, MOTION_DIRECTIONS, dim),
        scene=directions(rng, num_classes, dim),
        distractors=directions(rng, parameters.events.distractor_prototypes, dim),
        drift=directions(rng, DRIFT_DIRECTIONS, dim),
    )


def _clip_world(rng: np.random.Generator, num_classes: int, parameters: Parameters) -> CLIPWorld:
    dim, p = parameters.size.clip_dim, parameters.clip
    action = directions(rng, num_classes, dim)
    scene = directions(rng, num_classes, dim)
    share = np.clip(rng.normal(p.text_scene, p.text_scene_std, (num_classes, 1)), 0.05, 0.95)
    residual = directions(rng, num_classes, dim)
    text = unit(np.sqrt(1.0 - share) * action + np.sqrt(share) * scene + p.text_residual * residual)
    return CLIPWorld(
        action=action,
        scene=scene,
        distractors=directions(rng, parameters.events.distractor_prototypes, dim),
        image_mean=directions(rng, dim),
        drift=directions(rng, DRIFT_DIRECTIONS, dim),
        text=unit(text + p.modality_gap * directions(rng, dim)).astype(np.float32),
    )


def _mix(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Unit vectors; ``second`` contributes ``share`` of the squared norm."""
    return unit(np.sqrt(1.0 - share) * first + np.sqrt(share) * second).astype(np.float32)
