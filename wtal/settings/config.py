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
    """The schedule: warm-up, then B and F steps in turn or both at once. Without CLIP features CBP is trained alone."""

    kind: Literal["auto", "alternating", "online", "cbp"] = "auto"
    """alternating: B and F steps in turn. online: both branches learn in every step, each from pseudo-labels of the
    other's moving average, which are made anew every epoch; it has the epochs of B and F. cbp: CBP alone, which needs
    no CLIP features. auto: alternating if the data set has CLIP features, else cbp."""
    online_ema: float = 0.9
    """Online training: the share of its old value that each branch's moving average keeps in a step; 0: no average. The
    averages are the teachers, and the branches take their weights at the end."""
    warmup_epochs: int = 10
    """Epochs of the CBP warm-up, which uses only video labels."""
    b_epochs: int = 20
    """Epochs of each B step: CBP's pseudo-labels train VLP. Background is the important part."""
    f_epochs: int = 20
    """Epochs of each F step: VLP's pseudo-labels train CBP. Foreground is the important part."""
    rounds: int = 1
    """The number of B steps, each followed by an F step."""
    self_training: int = 0
    """The number of steps after the warm-up in which CBP learns from its own pseudo-labels, with the epochs and shares
    of F."""
    ensemble_epochs: int = 0
    """Epochs of a last step in which the ensemble of both branches teaches CBP; 0: no such step."""
    control: bool = False
    """Also train a CBP without a teacher, for comparison, for as many epochs as CBP has with a teacher."""


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
    """The largest norm of a network's gradient; 0: no clipping."""
    ema: float = 0.0
    """Each B, F or other step of the schedule ends with the moving average of its weights. The average keeps this share
    of its old value in each optimiser step; 0: no average. Online training uses schedule.online_ema instead."""


@dataclass(frozen=True)
class BatchConfig:
    """The training batches."""

    size: int = 64
    """Videos in a batch, over all processes. The last batch of an epoch may have fewer."""
    micro: int = 0
    """The largest number of videos that the network computes at once, to save GPU memory. Gradients are added up, so
    they are those of the whole batch. 0: the whole batch, or a process's share of it."""
    steps_per_epoch: int = 0
    """Batches in an epoch, all full, from as many passes over the videos as necessary; 0: one pass."""
    snippets: int = 1000
    """The largest number of consecutive snippets that are taken from a video, at a random place."""
    standardize: bool = True
    """Standardise each dimension of the I3D features with the mean and the deviation of the training videos."""


@dataclass(frozen=True)
class CBPConfig:
    """The classification branch."""

    networks: int = 1
    """The number of networks in the branch. Each is trained by itself, from its own weights, in its own order of videos
    and with its own crops; the logits of the branch are the mean of theirs."""
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
    """Attention reaches this many snippets to each side; None: the whole video."""
    output_bias: float = -2.0
    """Initial bias of the class logits."""
    activation: Literal["sigmoid", "softmax"] = "sigmoid"
    """How logits become probabilities, in the loss and at inference. sigmoid: each class independently. softmax: one
    distribution over all classes."""
    residual_init: float | None = None
    """The initial value of learned factors that scale the residuals of encoder and decoder. With a value near 0 the
    branch begins as one convolution. None: plain residuals in the encoder and none in the decoder, as in the
    supplement."""
    output_dropout: float = 0.0
    """Dropout before the last layer."""
    attention: bool = False
    """Also train a class-agnostic foreground attention, by loss.attended and loss.unattended. Localisation does not use
    it."""


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
    """Attention reaches this many snippets to each side; None: the whole video."""
    prompts_before: int = 16
    """Learnable prompt vectors before the class name."""
    prompts_after: int = 16
    """Learnable prompt vectors after the class name."""
    init_std: float = 0.01
    """Standard deviation of the initial prompts and temporal Transformer weights."""
    temperature: float = 0.07
    """The cosine similarity is divided by this value."""
    bias_deviations: float = 1.5
    """The initial bias of the logit is the mean cosine of the training videos plus this many standard deviations."""


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms and the pooling of video-level scores."""

    topk_divisor: int = 8
    """The score of a video is the mean of its highest (snippets / this value) snippet logits."""
    video: float = 1.0
    """Weight of the video-level classification loss."""
    attended: float = 0.5
    """With cbp.attention: weight of the classification loss of the attended snippets."""
    unattended: float = 0.5
    """With cbp.attention: weight of the loss by which the other snippets have no class."""
    attention: float = 0.05
    """With cbp.attention: weight of the mean attention, which keeps the attention sparse."""
    contrast: float = 0.0
    """CBP: weight of the contrast between hard snippets (where the scores cross their median) and easy snippets (the
    most confident ones); 0: no contrast."""
    distill: float = 1.0
    """Weight of the two pseudo-label terms, foreground and background, in the classes of a video."""
    absent: float = 1.0
    """B and F steps: weight of the term that keeps the other classes at zero; unused under a softmax."""


@dataclass(frozen=True)
class DistillConfig:
    """Pseudo-labels by temporal rank, from quantiles in [0, 1] per video and class. Snippets between are ignored."""

    b_foreground: float = 0.92
    """B step: snippets that rank above this under CBP are foreground."""
    b_background: float = 0.60
    """B step: snippets that rank below this under CBP are background."""
    f_foreground: float = 0.85
    """F step: snippets that rank above this under VLP are foreground."""
    f_background: float = 0.60
    """F step: snippets that rank below this under VLP are background."""
    adaptive: bool = False
    """Scale the share of snippets above each threshold by the share of the video on which the teacher fires."""
    confidence: bool = False
    """Weight each pseudo-label by the distance of the teacher's scaled score from one half."""
    ensemble: Literal["probability", "logit", "rank"] = "probability"
    """The scores that are averaged if an ensemble is the teacher: probabilities (under a softmax, logits above 0, as in
    inference) or logits, scaled to [0, 1] per video and class, or temporal ranks."""


@dataclass(frozen=True)
class LocalizeConfig:
    """From frame scores to detections."""

    branch: Literal["cbp", "vlp", "ensemble"] = "cbp"
    """The branch whose scores are used; cbp needs no CLIP features."""
    theta_cls: float = 0.2
    """A class is localised if its video-level probability is above this. The best class always is."""
    theta_loc: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    """Thresholds on the frame scores, which are scaled to [0, 1] per video and class."""
    upsample: int = 1
    """Frame scores are interpolated to this many parts per snippet before the thresholds are applied."""
    score: Literal["max", "mean", "oic"] = "max"
    """The score of a proposal: the maximum inside, the mean inside, or the outer-inner contrast."""
    nms: Literal["gaussian", "linear", "hard"] = "gaussian"
    """The kind of non-maximum suppression."""
    sigma: float = 0.3
    """Width of the Gaussian decay."""
    iou_threshold: float = 0.5
    """tIoU from which linear and hard suppression act."""
    min_score: float = 0.001
    """Detections below this are dropped."""
    max_detections: int = 100
    """The largest number of detections per video and class."""


@dataclass(frozen=True)
class EvaluateConfig:
    """The evaluation."""

    protocol: Literal["seconds", "snippets"] = "seconds"
    """seconds: the annotated ground truth. snippets: rounded to 16-frame snippets at 25 fps, as many peers do."""
    ambiguous: Literal["keep", "drop"] = "keep"
    """drop: leave out detections that meet an interval of Ambiguous_test.txt, as CO2-Net and P-MIL do."""
    tiou: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    """The tIoU thresholds; the mean is over them."""


@dataclass(frozen=True)
class RunConfig:
    """All settings of a run, which a recipe fills.

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
