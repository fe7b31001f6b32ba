"""What is trained and compared, as data: stages for :class:`wtal.train.Trainer`, and the differences that count.

Every stage trains a branch of its own name, so that what several variants begin with is trained once. The initial
branches, ``cbp`` and ``vlp``, stay as they are. No torch in here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wtal.config import ScheduleConfig
from wtal.schedule import Peer, Stage

GROUPS = ("core", "comparisons", "rounds", "candidates", "online")
"""Parts of the table. Each but the first goes on from what ``core`` trained."""

RANDOM = "random scores"
"""The branch of random scores."""

SINGLE_THRESHOLD = {"localize": {"theta_loc": [0.5]}}
BY_MAXIMUM = {"localize": {"score": "max"}}


def group_stages(group: str, config: ScheduleConfig) -> tuple[Stage, ...]:
    """The stages of one group, without those of ``core``."""
    warmup, b, f = config.warmup_epochs, config.b_epochs, config.f_epochs

    def pair(name: str, told: str, settings: dict[str, dict[str, object]]) -> tuple[Stage, Stage]:
        """A B and an F step like the first, with other settings."""
        vlp, cbp = f"vlp {name}", f"cbp {name}"
        return (
            Stage(f"B {name}", vlp, "cbp warm", b, f"VLP after B, {told}", "vlp", settings=settings),
            Stage(f"F {name}", cbp, vlp, f, f"CBP after F, {told}", "cbp warm", settings=settings),
        )

    def further(number: int) -> tuple[Stage, ...]:
        """One more round."""
        vlp, cbp = f"vlp B{number}", f"cbp F{number}"
        before_vlp, before_cbp = f"vlp B{number - 1}", f"cbp F{number - 1}"
        return (
            Stage(f"B{number}", vlp, before_cbp, b, f"VLP after B {number}", before_vlp),
            Stage(f"F{number}", cbp, vlp, f, f"CBP after F {number}", before_cbp),
            Stage(f"ensemble {number}", f"{cbp}+{vlp}", None, 0, f"ensemble after F {number}"),
        )

    stages = {
        "core": (
            Stage("random", RANDOM, None, 0, "random scores"),
            Stage("zero-shot", "vlp", None, 0, "VLP zero-shot"),
            Stage("warmup", "cbp warm", None, warmup, "CBP after warm-up", "cbp"),
            Stage("control", "cbp long", None, f, "CBP as long, no teacher", "cbp warm"),
            Stage("B1", "vlp B1", "cbp warm", b, "VLP after B", "vlp"),
            Stage("F1", "cbp F1", "vlp B1", f, "CBP after F", "cbp warm"),
            Stage("ensemble", "cbp F1+vlp B1", None, 0, "ensemble after F"),
            Stage("self", "cbp self", "cbp warm", f, "CBP self-training", "cbp warm"),
            Stage("shuffled", "cbp shuffled", "vlp B1", f, "CBP, shuffled labels of VLP", "cbp warm", "shuffled"),
            Stage("video", "vlp video", None, b, "VLP, video labels only", "vlp"),
            Stage("naive", "cbp long+vlp video", None, 0, "naive late ensemble"),
        ),
        "comparisons": (
            Stage("B only", "cbp long+vlp B1", None, 0, "B only, ensemble"),
            Stage("F only", "cbp F only", "vlp video", f, "F only: CBP", "cbp warm"),
            Stage("F only 2", "cbp F only+vlp video", None, 0, "F only, ensemble"),
            Stage("VLP self", "vlp self", "vlp", b, "VLP self-training", "vlp"),
            Stage("both self", "cbp self+vlp self", None, 0, "both self-training, ensemble"),
            Stage("supervised", "cbp true", None, warmup + f, "CBP fully supervised", "cbp", "truth"),
        ),
        "rounds": (*further(2), *further(3)),
        "online": (
            Stage("online", "cbp online", None, f, "CBP after online", "cbp warm", peer=Peer("vlp online", b, "vlp")),
            Stage("online vlp", "vlp online", None, 0, "VLP after online"),
            Stage("online ensemble", "cbp online+vlp online", None, 0, "ensemble after online"),
            # B and F whose weights are averaged alike: what averaging alone brings.
            *pair("averaged", "averaged", {"optimizer": {"ema": config.online_ema}}),
            Stage("averaged ensemble", "cbp averaged+vlp averaged", None, 0, "ensemble after F, averaged"),
        ),
        "candidates": (
            Stage("maximum", "cbp F1", None, 0, "CBP after F, scored by maximum", settings=BY_MAXIMUM),
            Stage("threshold", "cbp F1", None, 0, "CBP after F, one threshold", settings=SINGLE_THRESHOLD),
            Stage("F again", "cbp again", "vlp B1", f, "CBP after F, twice as long", "cbp F1"),
            Stage("E", "cbp E", "cbp F1+vlp B1", f, "CBP after F, then E", "cbp F1"),
            *pair("adaptive", "adaptive shares", {"distill": {"adaptive": True}}),
            *pair("confidence", "confidence and EMA", {"distill": {"confidence": True}, "optimizer": {"ema": 0.98}}),
        ),
    }
    return stages[group]


@dataclass(frozen=True)
class Comparison:
    """A paired difference, row minus ``to``, and what is expected of it.

    Attributes:
        row: title of a row of the table.
        to: title of another.
        of: ``mAP``, or a rate of :func:`wtal.snippet_errors.fault_rates`.
        expect: ``more`` and ``less`` hold when the 95 % interval lies wholly on that side of zero; ``no gain`` when
            it does not lie wholly above.
    """

    row: str
    to: str
    of: str = "mAP"
    expect: Literal["more", "less", "no gain"] = "more"


CLAIMS = (
    Comparison("CBP after F", "CBP as long, no teacher"),
    Comparison("CBP after F", "CBP self-training"),
    Comparison("ensemble after F", "naive late ensemble"),
    Comparison("CBP, shuffled labels of VLP", "CBP as long, no teacher", expect="no gain"),
    Comparison("VLP after B", "VLP zero-shot", "false_positive", "less"),
    Comparison("VLP after B", "VLP, video labels only", "false_positive", "less"),
    Comparison("CBP after F", "CBP after warm-up", "false_negative", "less"),
    Comparison("CBP after F", "CBP as long, no teacher", "false_negative", "less"),
)
"""What the method is said to do; reported whether it holds or not."""

FURTHER = (
    Comparison("VLP after B", "VLP, video labels only"),
    Comparison("CBP after F", "F only: CBP"),
    Comparison("ensemble after F", "B only, ensemble"),
    Comparison("ensemble after F", "F only, ensemble"),
    Comparison("ensemble after F", "both self-training, ensemble"),
    Comparison("CBP fully supervised", "CBP after F"),
    Comparison("CBP after F 2", "CBP after F"),
    Comparison("CBP after F 3", "CBP after F 2"),
    Comparison("ensemble after F 2", "ensemble after F"),
    Comparison("CBP after F", "CBP after F, scored by maximum"),
    Comparison("CBP after F", "CBP after F, one threshold"),
    Comparison("CBP after F, adaptive shares", "CBP after F"),
    Comparison("CBP after F, confidence and EMA", "CBP after F"),
    Comparison("CBP after F, then E", "CBP after F, twice as long"),
    Comparison("CBP after F, then E", "ensemble after F"),
    Comparison("CBP after online", "CBP after F"),
    Comparison("VLP after online", "VLP after B"),
    Comparison("ensemble after online", "ensemble after F"),
    Comparison("CBP after online", "CBP after F, averaged"),
    Comparison("VLP after online", "VLP after B, averaged"),
    Comparison("ensemble after online", "ensemble after F, averaged"),
)
"""Further differences, those of the candidates among them."""
