"""The comparisons of an ablation, as data: pairs of rows, and the expected result of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Comparison:
    """A paired difference, ``row`` minus ``to``, and its expected result.

    Attributes:
        row: title of a row of the table.
        to: title of the row that is subtracted.
        of: ``mAP``, or a rate of :func:`wtal.evaluation.snippet_errors.error_rates`.
        expect: the expected result, see :func:`wtal.ablation.verdict.verdict`; None: the difference is only reported.
    """

    row: str
    to: str
    of: str = "mAP"
    expect: Literal["more", "less", "no gain"] | None = "more"


CLAIMS = (
    Comparison("CBP after F", "CBP as long, no teacher"),
    Comparison("CBP after F", "CBP self-training"),
    Comparison("ensemble after F", "naive late ensemble"),
    Comparison("CBP, shuffled labels of VLP", "CBP as long, no teacher", expect="no gain"),
    Comparison("CBP, shifted labels of VLP", "CBP as long, no teacher", expect="no gain"),
    Comparison("VLP after B", "VLP zero-shot", "false_positive", "less"),
    Comparison("VLP after B", "VLP, video labels only", "false_positive", "less"),
    Comparison("CBP after F", "CBP after warm-up", "false_negative", "less"),
    Comparison("CBP after F", "CBP as long, no teacher", "false_negative", "less"),
)
"""The claims of the method. They are reported whether they hold or not."""

FURTHER = (
    # the sources of the gain
    Comparison("CBP self-training", "CBP as long, no teacher", expect=None),
    Comparison("F only: CBP", "CBP self-training", expect=None),
    Comparison("CBP after F", "F only: CBP"),
    Comparison("CBP after F", "CBP self-training", "false_positive", None),
    Comparison("CBP after F", "CBP self-training", "false_negative", None),
    Comparison("CBP after F", "CBP as long, no teacher", "non_core", None),
    Comparison("VLP after B", "VLP zero-shot", "false_negative", None),
    Comparison("VLP after B", "VLP zero-shot", "non_core", None),
    Comparison("VLP after B", "VLP zero-shot", "context", None),
    Comparison("CBP fully supervised", "CBP after F", "non_core", None),
    # other ways to train
    Comparison("VLP after B", "VLP, video labels only"),
    Comparison("VLP after B", "VLP after B, background only"),
    Comparison("CBP after F", "CBP after F, foreground only"),
    Comparison("ensemble after F", "B only, ensemble"),
    Comparison("ensemble after F", "F only, ensemble"),
    Comparison("ensemble after F", "both self-training, ensemble"),
    Comparison("CBP fully supervised", "CBP after F", expect=None),
    # more rounds, against one round of as many epochs
    Comparison("VLP after B 2", "VLP after B, twice as long"),
    Comparison("CBP after F 2", "CBP after F, twice as long"),
    Comparison("ensemble after F 2", "ensemble after F, twice as long"),
    Comparison("CBP after F 3", "CBP after F 2"),
    Comparison("ensemble after F 3", "ensemble after F 2"),
    # candidates for the recipe
    Comparison("CBP after F", "CBP after F, scored by maximum"),
    Comparison("CBP after F, scored by maximum", "CBP as long, no teacher, scored by maximum"),
    Comparison("CBP after F, scored by maximum", "CBP self-training, scored by maximum"),
    Comparison("ensemble after F, scored by maximum", "naive late ensemble, scored by maximum"),
    Comparison("CBP after F", "CBP after F, one threshold"),
    Comparison("CBP after F, adaptive shares", "CBP after F"),
    Comparison("CBP after F, EMA", "CBP after F"),
    Comparison("CBP after F, confidence and EMA", "CBP after F, EMA"),
    Comparison("CBP after F, then E", "CBP after F, twice as long"),
    Comparison("CBP after F, then E", "CBP after F 2"),
    Comparison("CBP after F, then E", "ensemble after F"),
    # online: both branches train at once
    Comparison("CBP after online", "CBP after F"),
    Comparison("VLP after online", "VLP after B"),
    Comparison("ensemble after online", "ensemble after F"),
    Comparison("CBP after online", "CBP after F, averaged"),
    Comparison("VLP after online", "VLP after B, averaged"),
    Comparison("ensemble after online", "ensemble after F, averaged"),
)
"""Further comparisons, among them those of candidates for the recipe."""

FALSE_PREMISE = {
    "clip-without-action": "CLIP sees the scene but no action",
    "i3d-with-scene": "I3D sees the scene as CLIP does",
    "no-core-gap": "onset and offset look like the core",
}
"""How a benchmark is meant to violate the premise of the method, by the end of its name: so that the branches can teach
each other little or nothing."""

CONTROLS = (
    Comparison("CBP after F", "CBP self-training", expect="no gain"),
    Comparison("CBP after F", "CBP as long, no teacher", expect=None),
    Comparison("CBP self-training", "CBP as long, no teacher", expect=None),
    Comparison("VLP after B", "VLP, video labels only", expect=None),
    Comparison("ensemble after F", "naive late ensemble", expect=None),
)
"""The claims for :data:`FALSE_PREMISE`: VLP's pseudo-labels should bring no more than CBP's own. Pseudo-labels of
either branch may still help."""


def violation(benchmark: str) -> str | None:
    """How a benchmark, of any generator version, is meant to violate the premise of the method; None if it is not."""
    return next((how for name, how in FALSE_PREMISE.items() if benchmark.endswith(name)), None)


def claims_of(benchmark: str) -> tuple[Comparison, ...]:
    """The claims that are examined on a benchmark."""
    return CLAIMS if violation(benchmark) is None else CONTROLS
