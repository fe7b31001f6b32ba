"""All parameters of the synthetic benchmark.

Strengths are in units of unit-norm prototypes (:mod:`wtal.data.synthetic.world`): a strength of 1.0 adds one whole
prototype to a snippet's feature, and a noise of 1.4 adds a random vector whose norm is about 1.4. Lengths are in
snippets. "Core" is the discriminative middle of an instance, "phase" its onset and offset.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from wtal.errors import WtalError


def _expect(condition: bool, name: str, value: object, wanted: str) -> None:
    if not condition:
        raise WtalError(f"synthetic parameter {name} is {value}: expected {wanted}")


@dataclass(frozen=True)
class SizeParameters:
    """The amount of generated data, and its shapes."""

    classes: int = 10
    """Action classes."""
    training_videos: int = 100
    """Videos of the subset "train"."""
    test_videos: int = 100
    """Videos of the subset "test"."""
    min_snippets: int = 128
    """Shortest video; T is uniform from ``min_snippets`` to ``max_snippets``, both included."""
    max_snippets: int = 192
    """Longest video."""
    i3d_dim: int = 256
    """Width of the I3D-like features; even, because the first half stands for RGB and the second for flow."""
    clip_dim: int = 128
    """Width of the CLIP-like features and of the text features."""


TRUE_SHAPES = SizeParameters(min_snippets=800, max_snippets=1200, i3d_dim=2048, clip_dim=512)
"""The shapes of real features: 2048-d I3D, 512-d CLIP, about 1000 snippets a video."""


@dataclass(frozen=True)
class EventParameters:
    """The events in a video and their times."""

    second_class: float = 0.15
    """Probability that a video has two classes instead of one."""
    extra_instances: float = 2.5
    """A class has 1 + Poisson(this) instances in a video."""
    duration_median: float = 9.0
    """Median of an instance's log-normal duration."""
    duration_sigma: float = 0.5
    """Standard deviation of the logarithm of this duration."""
    duration_min: int = 4
    """Durations are clipped to this ..."""
    duration_max: int = 40
    """... and to this."""
    core_min: float = 0.25
    """The core is a uniform fraction of the instance, at least this ..."""
    core_max: float = 0.5
    """... and at most this."""
    onset_min: float = 0.3
    """The onset is a uniform fraction of the rest of the instance (without the core), at least this ..."""
    onset_max: float = 0.7
    """... and at most this; the offset is the rest."""
    gain_sigma: float = 0.25
    """An instance's strength is exp(this * N(0, 1))."""
    context_probability: float = 0.9
    """Probability of context on each side of an instance."""
    context_min: float = 0.2
    """The length of this context is a uniform fraction of the instance's duration, at least this ..."""
    context_max: float = 1.0
    """... and at most this."""
    lone_context: float = 0.7
    """Poisson mean of context episodes without action, for each class of the video."""
    cross_context: float = 0.3
    """Probability of one context episode of a class drawn from all classes."""
    lone_min: int = 5
    """Shortest context episode without action."""
    lone_max: int = 15
    """Longest context episode without action."""
    distractors: float = 2.5
    """Poisson mean of distractor events in a video."""
    distractor_min: int = 4
    """Shortest distractor event."""
    distractor_max: int = 15
    """Longest distractor event."""
    distractor_prototypes: int = 40
    """How many different distractors the world has."""
    distractor_phase: float = 0.4
    """Probability that a distractor looks in I3D-like features like an onset or offset without a specific class. This
    makes snippets outside the core ambiguous."""


@dataclass(frozen=True)
class I3DParameters:
    """The content of I3D-like features: motion (strong in the core, ambiguous around it) and little of the scene."""

    core: float = 1.0
    """Strength of the class prototype in the core."""
    group: float = 0.4
    """Share (of squared norm) of a class prototype that two classes of a pair have in common."""
    phase: float = 0.55
    """Strength of the phase prototype in onset and offset."""
    phase_class: float = 0.25
    """Cosine between a phase prototype and its class's core prototype."""
    phase_shared: float = 0.6
    """Share of the rest of a phase prototype that is common to all classes."""
    motion: float = 0.5
    """Strength of a random direction in the motion subspace, in every action and distractor snippet."""
    scene: float = 0.25
    """Strength of the scene prototype in context."""
    scene_in_action: float = 0.125
    """Strength of the scene prototype inside an action."""
    distractor: float = 0.9
    """Strength of a distractor."""
    noise: float = 1.4
    """Norm of the AR(1) noise."""
    noise_correlation: float = 0.6
    """Correlation of the noise from one snippet to the next."""
    offset: float = 0.4
    """Norm of a constant vector, another one in each video."""
    drift: float = 0.4
    """Standard deviation of the slow drift along each of its directions."""
    norm: float = 1.5
    """The sum is divided by this and multiplied by sqrt(i3d_dim), which gives about unit variance per dimension."""


@dataclass(frozen=True)
class CLIPParameters:
    """The content of CLIP-like features: the whole action evenly, and equally the scene, inside and outside actions."""

    core: float = 1.0
    """Strength of the action prototype in the core."""
    phase: float = 0.8
    """Strength of the action prototype in onset and offset."""
    scene_in_action: float = 0.6
    """Strength of the scene prototype inside an action."""
    scene_in_context: float = 1.0
    """Strength of the scene prototype in context ..."""
    scene_jitter: float = 0.25
    """... times a uniform factor of 1 plus or minus this, another one in each snippet."""
    scene_elsewhere: float = 0.3
    """Strength of the scene in the rest of the video, shared among its classes."""
    distractor: float = 0.9
    """Strength of a distractor."""
    modality_gap: float = 1.5
    """Norm of a constant vector in all images, and of another constant vector in all texts."""
    text_scene: float = 0.6
    """Mean share of a class's text feature that describes the scene instead of the action ..."""
    text_scene_std: float = 0.15
    """... and its standard deviation over classes."""
    text_residual: float = 0.5
    """Norm of the part of a class's text feature that is in no image."""
    noise: float = 2.2
    """Norm of the AR(1) noise."""
    noise_correlation: float = 0.8
    """Correlation of the noise from one snippet to the next."""
    offset: float = 0.6
    """Norm of a constant vector, another one in each video."""
    drift: float = 0.4
    """Standard deviation of the slow drift along each of its directions."""


@dataclass(frozen=True)
class RealParameters:
    """The additional parameters of version 2: properties of real features that version 1 does not have.

    They shape I3D-like and CLIP-like features alike, with random numbers of their own for each; the values after "with
    this value" are those of I3D-like features.

    "Real" means R(2+1)D-18 features of 185 training videos of THUMOS14, 1.9 snippets per second. The figures are from
    ``tools/describe_features.py``; docs/synthetic.md has all of them, also for both versions.
    """

    count_shape: float = 0.8
    """The number of instances after the first of a class follows a Poisson distribution. Its mean is Gamma distributed
    with this shape and mean ``extra_instances``, in proportion to the video's length. Real videos have 2, 7 and 33
    instances (tenth percentile, median, ninetieth percentile), videos of version 2 have 1, 5 and 21."""
    typical_snippets: int = 170
    """The mean number of extra instances is ``extra_instances`` in a video of this length. Real videos have 66, 256 and
    564 snippets, which is too much for a demo of two minutes."""
    most_action: float = 0.6
    """No further instance is added when the share of action reaches this value; the ninetieth percentile of real videos
    is .58."""
    clustered: float = 0.65
    """Probability that an instance follows closely after the previous one ..."""
    gap_mean: float = 4.0
    """... after a gap with a geometric distribution and this mean, in snippets. Real gaps: 0, 3 and 27 snippets."""
    venue: float = 0.35
    """Strength of the scene in the whole video, in I3D-like features; CLIP-like ones have ``scene_elsewhere``. A
    probe finds the class of a video from its mean background for .68 of the real videos, for .24 in version 1 and for
    .72 with this value."""
    venue_sigma: float = 1.0
    """The venue's strength in a video is exp(this * N(0, 1))."""
    blur: float = 1.6
    """Events blur with an exponential decay of this many snippets on each side. In real features
    the snippet next to an instance has .67 of the action's score by a linear probe, the second snippet .39, the third
    and fourth .23. Version 1 has .08, .08 and .06; with this value it is .48, .29 and .13."""
    video_gain_sigma: float = 0.7
    """All actions of a video are multiplied by exp(this * N(0, 1)). Real videos differ in the AUC of a probe of the
    class: the mean is .79, the lowest tenth .61. Version 1 has .96 and .91; with this value it is .90 and .76."""
    slow_noise: float = 1.3
    """Norm of a second noise ..."""
    slow_correlation: float = 0.9
    """... with this correlation from one snippet to the next. The autocorrelation of real background is .74, .57, .39,
    .22, .10 and .03 at lags 1, 2, 4, 8, 16 and 32: half of it is noise with correlation .58, half with .9."""


@dataclass(frozen=True)
class ControlParameters:
    """Three negative controls, in which the branches are not to teach each other, and one factor for the difficulty.

    If the other branch's labels help more than a branch's own labels in a negative control, then a gain elsewhere is no
    evidence for the premise of the method, or the control does not violate it. Pseudo-labels in general may help there.
    """

    clip_without_action: bool = False
    """CLIP-like features contain the scene, equally in action and context, but no action."""
    i3d_with_scene: bool = False
    """I3D-like features contain the scene in context as strongly as CLIP-like ones, and half of that in action."""
    no_core_gap: bool = False
    """Onset and offset look like the core, in both kinds of features."""
    difficulty: float = 1.0
    """Factor on noise, offset and drift of both kinds of features."""


@dataclass(frozen=True)
class Parameters:
    """All parameters of the generator."""

    size: SizeParameters = field(default_factory=SizeParameters)
    events: EventParameters = field(default_factory=EventParameters)
    i3d: I3DParameters = field(default_factory=I3DParameters)
    clip: CLIPParameters = field(default_factory=CLIPParameters)
    control: ControlParameters = field(default_factory=ControlParameters)
    real: RealParameters | None = None
    """None is version 1."""

    @property
    def version(self) -> int:
        """The generator version for these parameters; results are comparable only within one version."""
        return 1 if self.real is None else 2

    def __post_init__(self) -> None:
        size, events = self.size, self.events
        for name in ("classes", "training_videos", "test_videos", "min_snippets", "i3d_dim", "clip_dim"):
            _expect(getattr(size, name) >= 1, f"size.{name}", getattr(size, name), "at least 1")
        _expect(size.i3d_dim % 2 == 0, "size.i3d_dim", size.i3d_dim, "an even number")
        _expect(
            size.max_snippets >= size.min_snippets,
            "size.max_snippets",
            size.max_snippets,
            f"not below min_snippets ({size.min_snippets})",
        )
        _expect(events.duration_min >= 1, "events.duration_min", events.duration_min, "at least 1")
        _expect(
            events.duration_min <= events.duration_max < size.min_snippets,
            "events.duration_max",
            events.duration_max,
            f"from duration_min to below the shortest video ({size.min_snippets} snippets)",
        )
        _expect(self.control.difficulty >= 0, "control.difficulty", self.control.difficulty, "not negative")

    def resolved(self) -> Parameters:
        """The same parameters with the controls converted to strengths; the generator uses only strengths."""
        control, i3d, clip = self.control, self.i3d, self.clip
        if control.clip_without_action:
            clip = replace(clip, core=0.0, phase=0.0, scene_in_action=clip.scene_in_context)
        if control.i3d_with_scene:
            i3d = replace(i3d, scene=clip.scene_in_context, scene_in_action=0.5 * clip.scene_in_context)
        if control.no_core_gap:
            i3d = replace(i3d, phase=i3d.core, phase_class=1.0)
            clip = replace(clip, phase=clip.core)
        hard = control.difficulty
        i3d = replace(i3d, noise=hard * i3d.noise, offset=hard * i3d.offset, drift=hard * i3d.drift)
        clip = replace(clip, noise=hard * clip.noise, offset=hard * clip.offset, drift=hard * clip.drift)
        real = self.real and replace(self.real, slow_noise=hard * self.real.slow_noise)
        return replace(self, i3d=i3d, clip=clip, control=ControlParameters(), real=real)


DEFAULT = Parameters()
"""Version 1, which docs/results.md measures."""

VERSION_2 = Parameters(
    size=SizeParameters(min_snippets=64, max_snippets=448),
    events=EventParameters(
        extra_instances=7.0, duration_median=5.0, duration_sigma=0.8, duration_min=2, gain_sigma=0.4
    ),
    i3d=I3DParameters(
        core=1.0,
        phase=0.8,
        phase_class=0.6,
        phase_shared=0.85,
        motion=0.9,
        scene=0.35,
        scene_in_action=0.2,
        noise=1.9,
        noise_correlation=0.58,
        offset=1.1,
        drift=0.6,
    ),
    clip=CLIPParameters(noise_correlation=0.7, offset=1.1, drift=0.6),
    real=RealParameters(),
)
"""Version 2: it ranks designs almost as real features do (docs/synthetic.md)."""
