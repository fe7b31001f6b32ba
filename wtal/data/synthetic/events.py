"""The events in one video and their times: instances in three phases, context, distractors. No features here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from wtal.data.synthetic.parameters import EventParameters, RealParameters, SizeParameters

PLACING_TRIES = 40


class SnippetKind(IntEnum):
    """The content of a snippet; where events overlap, the largest value applies."""

    BACKGROUND = 0
    DISTRACTOR = 1
    CONTEXT = 2
    PHASE = 3
    """Onset or offset of an instance."""
    CORE = 4


@dataclass(frozen=True)
class Span:
    """Snippets ``[start, end)`` of class ``label`` (its index)."""

    start: int
    end: int
    label: int


@dataclass(frozen=True)
class Action:
    """One instance: onset ``[start, core_start)``, core, offset ``[core_end, end)``; ``gain`` is its strength."""

    start: int
    core_start: int
    core_end: int
    end: int
    label: int
    gain: float


@dataclass(frozen=True)
class Context:
    """The scene of class ``label`` without its action, at these snippets (``[n]`` int64)."""

    snippets: np.ndarray
    label: int


@dataclass(frozen=True)
class Distractor:
    """Another event at ``[start, end)``; ``phase`` is 0 or 1 if I3D-like features show an onset or offset."""

    start: int
    end: int
    prototype: int
    phase: int | None


@dataclass(frozen=True)
class Events:
    """One video.

    Attributes:
        labels: indices of the classes of the video, sorted.
        kinds: ``[T]`` int8, a :class:`SnippetKind` for each snippet.
    """

    labels: tuple[int, ...]
    actions: tuple[Action, ...]
    contexts: tuple[Context, ...]
    distractors: tuple[Distractor, ...]
    kinds: np.ndarray

    @property
    def num_snippets(self) -> int:
        """T."""
        return len(self.kinds)


def draw_instances(size: SizeParameters, events: EventParameters, rng: np.random.Generator) -> tuple[int, list[Span]]:
    """Draw a video's length and instances; no two instances touch.

    Returns:
        T and the instances, sorted by start.
    """
    num_snippets = int(rng.integers(size.min_snippets, size.max_snippets + 1))
    two = size.classes > 1 and rng.random() < events.second_class
    free = np.ones(num_snippets, dtype=bool)
    instances = []
    for label in rng.choice(size.classes, 2 if two else 1, replace=False):
        for _ in range(1 + rng.poisson(events.extra_instances)):
            log_duration = np.log(events.duration_median) + events.duration_sigma * rng.standard_normal()
            duration = int(np.clip(np.round(np.exp(log_duration)), events.duration_min, events.duration_max))
            start = _place(free, duration, rng)
            if start is not None:
                instances.append(Span(start, start + duration, int(label)))
    return num_snippets, sorted(instances, key=lambda span: span.start)


def draw_real_instances(
    size: SizeParameters, events: EventParameters, real: RealParameters, rng: np.random.Generator
) -> tuple[int, list[Span]]:
    """Like :func:`draw_instances`, but similar to real videos: video lengths and numbers of instances differ by an
    order of magnitude, and instances are close together."""
    low, high = np.log(size.min_snippets), np.log(size.max_snippets)
    num_snippets = int(np.clip(np.round(np.exp(rng.uniform(low, high))), size.min_snippets, size.max_snippets))
    two = size.classes > 1 and rng.random() < events.second_class
    free = np.ones(num_snippets, dtype=bool)
    instances = []
    for label in rng.choice(size.classes, 2 if two else 1, replace=False):
        abundance = num_snippets / real.typical_snippets * rng.gamma(real.count_shape) / real.count_shape
        after: int | None = None  # the end of the previous instance
        for number in range(1 + rng.poisson(events.extra_instances * abundance)):
            if number and np.mean(~free) >= real.most_action:
                break
            log_duration = np.log(events.duration_median) + events.duration_sigma * rng.standard_normal()
            duration = int(np.clip(np.round(np.exp(log_duration)), events.duration_min, events.duration_max))
            gap = int(rng.geometric(1.0 / max(1.0, real.gap_mean)))
            start = None
            if after is not None and rng.random() < real.clustered:
                start = _take(free, after + gap, duration)
            if start is None:
                start = _place(free, duration, rng)
            if start is not None:
                after = start + duration
                instances.append(Span(start, after, int(label)))
    return num_snippets, sorted(instances, key=lambda span: span.start)


def draw_events(
    num_snippets: int,
    instances: Sequence[Span],
    num_classes: int,
    parameters: EventParameters,
    rng: np.random.Generator,
    *,
    labels: Sequence[int] = (),
    pace: float = 1.0,
    abundance: float = 1.0,
) -> Events:
    """Draw the surroundings of given instances, and their inner structure.

    Args:
        num_snippets: T; instances are within it and may overlap.
        instances: the spans of the video's actions.
        num_classes: C.
        parameters: lengths and rates.
        rng: the video's random stream.
        labels: further classes of the video, without an instance.
        pace: snippets of this grid per snippet of the 16-frame, 25 fps grid, which the parameters' lengths refer to.
        abundance: factor on the expected number of events that are independent of instances, for long videos.
    """
    kinds = np.zeros(num_snippets, dtype=np.int8)
    actions = tuple(_draw_action(span, parameters, rng) for span in instances)
    for action in actions:
        kinds[action.start : action.end] = np.maximum(kinds[action.start : action.end], SnippetKind.PHASE)
        kinds[action.core_start : action.core_end] = SnippetKind.CORE
    about = tuple(sorted({span.label for span in instances} | set(labels)))
    contexts = _draw_contexts(kinds, actions, about, num_classes, parameters, rng, pace, abundance)
    distractors = _draw_distractors(kinds, parameters, rng, pace, abundance)
    return Events(about, actions, contexts, distractors, kinds)


def _draw_action(span: Span, p: EventParameters, rng: np.random.Generator) -> Action:
    duration = span.end - span.start
    core = max(1, round(duration * rng.uniform(p.core_min, p.core_max)))
    onset = round((duration - core) * rng.uniform(p.onset_min, p.onset_max))
    core_start = span.start + onset
    gain = float(np.exp(p.gain_sigma * rng.standard_normal()))
    return Action(span.start, core_start, core_start + core, span.end, span.label, gain)


def _draw_contexts(
    kinds: np.ndarray,
    actions: Sequence[Action],
    labels: Sequence[int],
    num_classes: int,
    p: EventParameters,
    rng: np.random.Generator,
    pace: float,
    abundance: float,
) -> tuple[Context, ...]:
    """Context beside instances, then separate context. Uses only background snippets and marks them in ``kinds``."""
    contexts = []

    def occupy(start: int, end: int, label: int) -> None:
        start, end = max(0, start), min(len(kinds), end)
        snippets = start + np.flatnonzero(kinds[start:end] == SnippetKind.BACKGROUND)
        if len(snippets):
            kinds[snippets] = SnippetKind.CONTEXT
            contexts.append(Context(snippets, label))

    for action in actions:
        for before in (True, False):
            if rng.random() < p.context_probability:
                duration = action.end - action.start
                length = max(1, round(duration * rng.uniform(p.context_min, p.context_max)))
                start = action.start - length if before else action.end
                occupy(start, start + length, action.label)

    lone = [label for label in labels for _ in range(rng.poisson(abundance * p.lone_context))]
    if rng.random() < p.cross_context:
        lone.append(int(rng.integers(num_classes)))
    free = kinds == SnippetKind.BACKGROUND
    for label in lone:
        length = _stretch(int(rng.integers(p.lone_min, p.lone_max + 1)), pace)
        place = _place(free, length, rng)
        if place is not None:
            occupy(place, place + length, label)
    return tuple(contexts)


def _draw_distractors(
    kinds: np.ndarray, p: EventParameters, rng: np.random.Generator, pace: float, abundance: float
) -> tuple[Distractor, ...]:
    """Distractors on the remaining background; marks them in ``kinds``."""
    distractors = []
    free = kinds == SnippetKind.BACKGROUND
    for _ in range(rng.poisson(abundance * p.distractors)):
        length = _stretch(int(rng.integers(p.distractor_min, p.distractor_max + 1)), pace)
        prototype = int(rng.integers(p.distractor_prototypes))
        phase = int(rng.integers(2)) if rng.random() < p.distractor_phase else None
        start = _place(free, length, rng)
        if start is not None:
            kinds[start : start + length] = SnippetKind.DISTRACTOR
            distractors.append(Distractor(start, start + length, prototype, phase))
    return tuple(distractors)


def _stretch(length: int, pace: float) -> int:
    return max(1, round(length * pace))


def _place(free: np.ndarray, length: int, rng: np.random.Generator) -> int | None:
    """Find ``length`` free snippets with a free one on each side, and take them; None if all random tries fail."""
    for _ in range(PLACING_TRIES):
        start = _take(free, int(rng.integers(max(1, len(free) - length))), length)
        if start is not None:
            return start
    return None


def _take(free: np.ndarray, start: int, length: int) -> int | None:
    """Take ``length`` snippets from ``start`` and return ``start``; None unless they and one on each side are free."""
    if start + length > len(free) or not free[max(0, start - 1) : start + length + 1].all():
        return None
    free[start : start + length] = False
    return start
