"""The allowed values of each setting. They are checked before a run starts, for settings from any source."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from wtal.errors import WtalError

Limit = tuple[Callable[[Any], bool], str]
"""A check of a value, and the text of an error message that says what is expected."""


def _at_least(least: float) -> Limit:
    return lambda value: least <= value < math.inf, f"a number from {least:g} on"


def _each(limit: Limit) -> Limit:
    fits, expected = limit
    return lambda values: len(values) > 0 and all(map(fits, values)), f"one or more, each {expected}"


def _or_none(limit: Limit) -> Limit:
    fits, expected = limit
    return lambda value: value is None or fits(value), f"{expected}, or none"


_COUNT = _at_least(1)
_COUNT_OR_NONE = _at_least(0)
_NOT_NEGATIVE = _at_least(0)
_POSITIVE: Limit = (lambda value: 0 < value < math.inf, "a number above 0")
_FINITE: Limit = (math.isfinite, "a finite number")
_SHARE: Limit = (lambda value: 0 <= value <= 1, "a number in 0..1")
_DROPOUT: Limit = (lambda value: 0 <= value < 1, "a number from 0 to below 1")
_TIOU: Limit = (lambda value: 0 < value <= 1, "above 0 and up to 1")

LIMITS: dict[str, dict[str, Limit]] = {
    "schedule": {
        "online_ema": _DROPOUT,
        **dict.fromkeys(
            ("warmup_epochs", "b_epochs", "f_epochs", "rounds", "self_training", "ensemble_epochs"), _COUNT_OR_NONE
        ),
    },
    "optimizer": {"lr": _POSITIVE, "weight_decay": _NOT_NEGATIVE, "clip_norm": _NOT_NEGATIVE, "ema": _DROPOUT},
    "batch": {"size": _COUNT, "micro": _COUNT_OR_NONE, "snippets": _COUNT, "steps_per_epoch": _COUNT_OR_NONE},
    "cbp": {
        **dict.fromkeys(("networks", "dim", "heads", "levels"), _COUNT),
        "mlp_ratio": _POSITIVE,
        "dropout": _DROPOUT,
        "input_dropout": _DROPOUT,
        "window": _or_none(_COUNT_OR_NONE),
        "output_bias": _FINITE,
        "residual_init": _or_none(_SHARE),
        "output_dropout": _DROPOUT,
    },
    "vlp": {
        "blocks": _COUNT_OR_NONE,
        "heads": _COUNT,
        "mlp_ratio": _POSITIVE,
        "dropout": _DROPOUT,
        "window": _or_none(_COUNT_OR_NONE),
        "prompts_before": _COUNT_OR_NONE,
        "prompts_after": _COUNT_OR_NONE,
        "init_std": _NOT_NEGATIVE,
        "temperature": _POSITIVE,
        "bias_deviations": _FINITE,
    },
    "loss": {
        "topk_divisor": _COUNT,
        **dict.fromkeys(
            ("video", "attended", "unattended", "attention", "contrast", "distill", "absent"), _NOT_NEGATIVE
        ),
    },
    "distill": dict.fromkeys(("b_foreground", "b_background", "f_foreground", "f_background"), _SHARE),
    "localize": {
        "theta_cls": _SHARE,
        "theta_loc": _each(_DROPOUT),  # below 1, because no scaled score is above 1
        "upsample": (lambda value: 1 <= value <= 16, "a number in 1..16"),
        "sigma": _POSITIVE,
        "iou_threshold": _SHARE,
        "min_score": _NOT_NEGATIVE,
        "max_detections": _COUNT,
    },
    "evaluate": {"tiou": _each(_TIOU)},
}
"""Section -> key -> limit, for every number in :class:`wtal.settings.config.RunConfig`."""

ORDERED: Sequence[tuple[str, str, str]] = (
    ("distill", "b_background", "b_foreground"),
    ("distill", "f_background", "f_foreground"),
)
"""A section and two of its keys: the value of the first must not be above that of the second."""


def check_settings(config: Any) -> None:
    """Check every number of a :class:`wtal.settings.config.RunConfig`.

    Raises:
        WtalError: a number is out of range.
    """
    for section, limits in LIMITS.items():
        for key, (fits, expected) in limits.items():
            value = getattr(getattr(config, section), key)
            if not fits(value):
                shown = ", ".join(map(str, value)) or "empty" if isinstance(value, tuple) else value
                raise WtalError(f"{section}.{key} is {shown}, expected {expected}")
    for section, low, high in ORDERED:
        below, above = (getattr(getattr(config, section), key) for key in (low, high))
        if below > above:
            raise WtalError(f"{section}.{low} is {below}, expected at most {section}.{high}, which is {above}")
