"""The settings of a run: dataclasses, filled from a recipe (``wtal/settings/recipes/*.toml``) and the command line.

A recipe overrides the defaults in this module, and the command line overrides the recipe. Every default is the value
of the paper's supplement if the supplement states one; the recipes mark those values. This module does not import
torch, because ``wtal-train --help`` reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wtal.settings.limits import check_settings


@dataclass(frozen=True)
class ScheduleConfig:
    """Warm-up, then ``rounds`` times a B step and an F step, or both at once; without CLIP features CBP alone."""

    kind: Literal["auto", "alternating", "online", "cbp"] = "auto"
    """alternating: B and F steps in turn. online: both branches learn in every step, each from the other's moving
    average, whose pseudo-labels are made anew every epoch, for as many epochs as B and F have. cbp: CBP alone, which
    needs no CLIP features. auto: alternating where the data set has CLIP features, else cbp."""
    online_ema: float = 0.9
    """Online: the share of its old value that each branch's moving average keeps in a step; 0: no average. The
    averages teach, and the branches take their weights at the end."""
    warmup_epochs: int = 10
    """Epochs of the CBP warm-up on video labels alone."""
    b_epochs: int = 20
    """Epochs of each B step: CBP's pseudo-labels, foreground and above all background, train VLP."""
    f_epochs: int = 20
    """Epochs of each F step: VLP's pseudo-labels, background and above all foreground, train CBP."""
    rounds: int = 1
    """How many times B and F alternate."""
    self_training: int = 0
    """After the warm-up: how many times CBP's own confident labels teach it for f_epochs, by the shares of F."""
    ensemble_epochs: int = 0
    """Epochs of a last step in which both branches' ensemble teaches CBP; 0 leaves it out."""
    control: bool = False
    """Also train a CBP without a teacher, for as many epochs as CBP has with one, as a comparison in the table."""


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser; each step of the schedule starts a new one."""

    name: Literal["adam", "adamw"] = "adam"
    """Update rule."""
    lr: float = 1e-4
    """Learning rate."""
    weight_decay: float = 0.0
    """Weight decay."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    ema: float = 0.0
    """Each B, F or other step of the schedule ends with the moving average of its weights. The average keeps this share
    of its old value in each optimiser step; 0: no average. Online training uses schedule.online_ema instead."""


@dataclass(frozen=True)
class BatchConfig:
    """What one training batch holds."""

    size: int = 64
    """Videos a batch, over all processes; an epoch keeps its last, partial batch."""
    micro: int = 0
    """At most this many videos of a batch go through the network at once, for a small card: gradients are added up, and
    are those of the whole batch. 0 is the whole batch, or a process's share of it."""
    steps_per_epoch: int = 0
    """Batches an epoch, all of them full, from as many passes over the videos as that takes; 0 is one pass."""
    snippets: int = 1000
    """At most this many consecutive snippets of a video, at a random place."""
    standardize: bool = True
    """Standardise I3D features with the training set's mean and deviation of each dimension."""


@dataclass(frozen=True)
class CBPConfig:
    """The classification branch."""

    dim: int = 512
    """Width of the encoder."""
    heads: int = 8
    """Attention heads."""
    levels: int = 3
    """Temporal scales of the pyramid: strides 1, 2, 4, ..."""
    mlp_ratio: float = 2.0
    """Width of the MLP in units of dim."""
    dropout: float = 0.1
    """Dropout after attention and MLP."""
    input_dropout: float = 0.3
    """Dropout on the features."""
    window: int | None = None
    """Attention reaches this many snippets to each side; None is the whole video."""
    output_bias: float = -2.0
    """Initial bias of the class logits."""
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """How logits become probabilities, in the loss and at inference. sigmoid: each class independently. softmax: one
    distribution over all classes."""
    residual_init: float | None = None
    """The residuals of encoder and decoder are scaled by learned factors that start here, so that from near 0 on the
    branch begins as one convolution; None leaves the supplement's plain residuals and a decoder without."""
    output_dropout: float = 0.0
    """Dropout before the last layer."""
    attention: bool = False
    """A class-agnostic foreground attention beside the classes, trained by loss.attended and unattended; localisation
    does not read it."""


@dataclass(frozen=True)
class VLPConfig:
    """The vision-language branch."""

    blocks: int = 2
    """Temporal Transformer layers on the frame features."""
    heads: int = 8
    """Attention heads."""
    mlp_ratio: float = 4.0
    """Width of the MLP in units of the feature width."""
    dropout: float = 0.1
    """Dropout after attention and MLP."""
    window: int | None = None
    """Attention reaches this many snippets to each side; None is the whole video."""
    prompts_before: int = 16
    """Learnable prompt vectors before the class name."""
    prompts_after: int = 16
    """Learnable prompt vectors after the class name."""
    init_std: float = 0.01
    """Standard deviation of the initial prompts and temporal Transformer weights."""
    temperature: float = 0.07
    """The cosine is divided by this."""
    bias_deviations: float = 1.5
    """The logit's bias starts at the mean training cosine plus this many standard deviations."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms and the pooling of video-level scores."""

    topk_divisor: int = 8
    """A video's score is the mean of its top (snippets / this) snippet logits."""
    video: float = 1.0
    """Weight of the video-level classification loss."""
    attended: float = 0.5
    """Where cbp.attention is on: weight of the attended snippets' classification loss."""
    unattended: float = 0.5
    """Weight of the loss that the other snippets have none of the classes, where cbp.attention is on."""
    attention: float = 0.05
    """Weight of the mean attention, where cbp.attention is on; it keeps the attention to few snippets."""
    contrast: float = 0.0
    """CBP: weight of the contrast between hard snippets (where the scores cross their median) and easy snippets (the
    most confident ones); 0 leaves it out."""
    distill: float = 1.0
    """Weight of the pseudo-label terms (foreground plus background of labelled classes)."""
    absent: float = 1.0
    """Weight of the term that holds absent classes at zero, in B and F steps."""


@dataclass(frozen=True)
class DistillConfig:
    """Pseudo-labels by temporal rank: quantiles in [0, 1] per video and labelled class; the rest is ignored."""

    b_foreground: float = 0.92
    """B step: snippets that rank above this under CBP are foreground."""
    b_background: float = 0.60
    """B step: snippets that rank below this under CBP are background."""
    f_foreground: float = 0.85
    """F step: snippets that rank above this under VLP are foreground."""
    f_background: float = 0.60
    """F step: snippets that rank below this under VLP are background."""
    adaptive: bool = False
    """Scale the two shares, above foreground and above background, by how much of each video the teacher fires on."""
    confidence: bool = False
    """Weight each pseudo-label by how far the teacher's scaled score is from one half."""
    ensemble: Literal["probability", "logit", "rank"] = "probability"
    """What is averaged where an ensemble teaches: each branch's probabilities or logits, scaled to [0, 1] per video and
    class, or its temporal ranks."""


@dataclass(frozen=True)
class LocalizeConfig:
    """From frame scores to detections."""

    branch: Literal["cbp", "vlp", "ensemble"] = "cbp"
    """The branch whose scores are used; cbp needs no CLIP features."""
    theta_cls: float = 0.2
    """A class is localised where its video-level probability is above this; the best class always is."""
    theta_loc: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Thresholds on the frame scores, which are scaled to [0, 1] per video and class."""
    upsample: int = 1
    """Frame scores are brought to this many parts a snippet, linearly in time, before they are thresholded."""
    score: Literal["max", "mean", "oic"] = "max"
    """A proposal's score: maximum inside, mean inside, or outer-inner contrast."""
    nms: Literal["gaussian", "linear", "hard"] = "gaussian"
    """Kind of non-maximum suppression."""
    sigma: float = 0.3
    """Width of the Gaussian decay."""
    iou_threshold: float = 0.5
    """tIoU from which linear and hard suppression act."""
    min_score: float = 0.001
    """Detections below this are dropped."""
    max_detections: int = 100
    """At most this many detections a video and class."""


@dataclass(frozen=True)
class EvaluateConfig:
    """How mAP is measured."""

    protocol: Literal["seconds", "snippets"] = "seconds"
    """snippets rounds the ground truth to the 25 fps, 16-frame grid, as many peers do."""
    ambiguous: Literal["keep", "drop"] = "keep"
    """drop leaves out detections that meet an interval of Ambiguous_test.txt, as CO2-Net and P-MIL do."""
    tiou: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    """tIoU thresholds; the mean is over these."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that a recipe sets.

    Raises:
        WtalError: a number is out of range (:mod:`wtal.settings.limits`).
    """

    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    cbp: CBPConfig = field(default_factory=CBPConfig)
    vlp: VLPConfig = field(default_factory=VLPConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    localize: LocalizeConfig = field(default_factory=LocalizeConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        check_settings(self)
