"""The variants of an ablation, as data: stages for :class:`wtal.training.trainer.Trainer`.

Every stage trains a copy of a branch under a new name. So a stage that several variants need is trained only once, and
the initial branches ``cbp`` and ``vlp`` never change. torch is not imported here.
"""

from __future__ import annotations

from wtal.settings.config import ScheduleConfig
from wtal.training.schedule import SecondStudent, Stage

GROUPS = ("core", "comparisons", "rounds", "candidates", "online")
"""Parts of the table. Each group after ``core`` starts from the branches that ``core`` trained."""

RANDOM = "random scores"
"""The name of the branch with random scores."""

SINGLE_THRESHOLD = {"localize": {"theta_loc": [0.5]}}
BY_MAXIMUM = {"localize": {"score": "max"}}
BACKGROUND = {"distill": {"b_foreground": 1.0}}  # ranks are in 0..1, so these thresholds give no labels
FOREGROUND = {"distill": {"f_background": 0.0}}


def group_stages(group: str, config: ScheduleConfig) -> tuple[Stage, ...]:
    """The stages of one group. Other groups than ``core`` do not repeat the stages of ``core``."""
    warmup, b, f = config.warmup_epochs, config.b_epochs, config.f_epochs

    def pair(name: str, title: str, settings: dict[str, dict[str, object]]) -> tuple[Stage, Stage]:
        """A B step and an F step like B1 and F1 of ``core``, with other settings."""
        vlp, cbp = f"vlp {name}", f"cbp {name}"
        return (
            Stage(f"B {name}", vlp, "cbp warm", b, f"VLP after B, {title}", "vlp", settings=settings),
            Stage(f"F {name}", cbp, vlp, f, f"CBP after F, {title}", "cbp warm", settings=settings),
        )

    def further(number: int) -> tuple[Stage, ...]:
        """Round ``number`` of B and F steps."""
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
            Stage("shifted", "cbp shifted", "vlp B1", f, "CBP, shifted labels of VLP", "cbp warm", "shifted"),
            Stage("B one", "vlp one", "cbp warm", b, "VLP after B, background only", "vlp", settings=BACKGROUND),
            Stage("F one", "cbp one", "vlp B1", f, "CBP after F, foreground only", "cbp warm", settings=FOREGROUND),
            Stage("supervised", "cbp true", None, warmup + f, "CBP fully supervised", "cbp", "truth"),
        ),
        "rounds": (
            *further(2),
            *further(3),
            # one round with the epochs of two rounds
            Stage("B again", "vlp again", "cbp warm", b, "VLP after B, twice as long", "vlp B1"),
            Stage("F again", "cbp again", "vlp B1", f, "CBP after F, twice as long", "cbp F1"),
            Stage("again", "cbp again+vlp again", None, 0, "ensemble after F, twice as long"),
        ),
        "online": (
            Stage(
                "online",
                "cbp online",
                None,
                f,
                "CBP after online",
                "cbp warm",
                second=SecondStudent("vlp online", b, "vlp"),
            ),
            Stage("online vlp", "vlp online", None, 0, "VLP after online"),
            Stage("online ensemble", "cbp online+vlp online", None, 0, "ensemble after online"),
            # B and F with the same weight averaging as online, to measure the effect of averaging alone
            *pair("averaged", "averaged", {"optimizer": {"ema": config.online_ema}}),
            Stage("averaged ensemble", "cbp averaged+vlp averaged", None, 0, "ensemble after F, averaged"),
        ),
        "candidates": (
            *(
                Stage(f"maximum {name}", student, None, 0, f"{row}, scored by maximum", settings=BY_MAXIMUM)
                for name, student, row in (
                    ("long", "cbp long", "CBP as long, no teacher"),
                    ("self", "cbp self", "CBP self-training"),
                    ("F", "cbp F1", "CBP after F"),
                    ("naive", "cbp long+vlp video", "naive late ensemble"),
                    ("ensemble", "cbp F1+vlp B1", "ensemble after F"),
                )
            ),
            Stage("threshold", "cbp F1", None, 0, "CBP after F, one threshold", settings=SINGLE_THRESHOLD),
            Stage("E", "cbp E", "cbp F1+vlp B1", f, "CBP after F, then E", "cbp F1"),
            *pair("adaptive", "adaptive shares", {"distill": {"adaptive": True}}),
            *pair("EMA", "EMA", {"optimizer": {"ema": 0.98}}),
            *pair("confidence", "confidence and EMA", {"distill": {"confidence": True}, "optimizer": {"ema": 0.98}}),
        ),
    }
    return stages[group]
