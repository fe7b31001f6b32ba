"""What is trained in which order, as data: the paper's schedule, the online one, and CBP's alone.

The schedules of the ablation variants are in wtal.ablation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wtal.settings.config import ScheduleConfig


@dataclass(frozen=True)
class SecondStudent:
    """A second student, which learns in the same steps of a stage as the first, each from the other's moving average.

    Attributes:
        student: a branch.
        epochs: as those of the stage. The student with fewer epochs stops after them and then only teaches.
        start: as :attr:`Stage.start`.
    """

    student: str
    epochs: int
    start: str | None = None


@dataclass(frozen=True)
class Stage:
    """One step: ``student`` trains for ``epochs``, on ``teacher``'s pseudo-labels if it has one, and is measured.

    Attributes:
        name: name shown in the log and in the progress display.
        student: a branch. Without epochs it may be an ensemble, ``a+b``, which is only measured.
        teacher: a branch or an ensemble, None for video labels alone.
        epochs: passes over the training videos, 0 to only measure.
        row: title of the stage's row in the table.
        start: the branch that the student begins as a copy of; None: the student exists and continues.
        labels: ``ranked`` pseudo-labels are the method. The others are comparisons: ``shuffled`` in the time of each
            video; ``shifted`` there, wrapped around, by a quarter of it or more, so that runs stay runs; ``truth``.
        settings: section -> key -> value, where this stage departs from the run's settings.
        second: a second student; there is no other teacher then, and pseudo-labels are made anew every epoch.
    """

    name: str
    student: str
    teacher: str | None
    epochs: int
    row: str
    start: str | None = None
    labels: Literal["ranked", "shuffled", "shifted", "truth"] = "ranked"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    second: SecondStudent | None = None

    @property
    def step(self) -> Literal["B", "F"]:
        """``B`` trains VLP, or a copy of it named ``vlp ...``; ``F`` trains CBP. Each has its own shares."""
        return "B" if self.student.split()[0] == "vlp" else "F"

    @property
    def length(self) -> int:
        """Epochs until its last student is done."""
        return max(self.epochs, self.second.epochs if self.second else 0)

    @property
    def starts(self) -> dict[str, str | None]:
        """Each student's start."""
        return {self.student: self.start, **({self.second.student: self.second.start} if self.second else {})}


def schedule(config: ScheduleConfig, has_clip: bool = True) -> tuple[Stage, ...]:
    """Warm-up, VLP as it is, the control if asked for, then B, F, B, F ..., and a step by the ensemble if asked for.

    Online, one stage takes the place of B, F, B, F ...: as many epochs of each branch, at once. Self-training, if asked
    for, comes before them. CBP alone has no more than warm-up, control and self-training, and a control only where
    there is self-training to compare with.

    Args:
        config: what is asked for.
        has_clip: whether the data have CLIP features; without, kind ``auto`` is CBP alone.
    """
    alone = config.kind == "cbp" or (config.kind == "auto" and not has_clip)
    stages = [Stage("warmup", "cbp", None, config.warmup_epochs, "CBP after warm-up")]
    if not alone:
        stages.append(Stage("zero-shot", "vlp", None, 0, "VLP zero-shot"))
    taught = config.self_training + (0 if alone else config.rounds)  # how many steps CBP has with a teacher
    if config.control and (taught or not alone):
        epochs = config.f_epochs * taught
        stages.append(Stage("control", "control", None, epochs, "CBP as long, no teacher", start="cbp"))
    for number in range(1, config.self_training + 1):
        round_ = f" {number}" if config.self_training > 1 else ""
        stages.append(Stage(f"S{number}", "cbp", "cbp", config.f_epochs, f"CBP after self-training{round_}"))
    if alone:
        return tuple(stages)
    if config.kind == "online":
        second = SecondStudent("vlp", config.b_epochs * config.rounds)
        stages.append(Stage("online", "cbp", None, config.f_epochs * config.rounds, "CBP after online", second=second))
        stages.append(Stage("online vlp", "vlp", None, 0, "VLP after online"))
    else:
        for number in range(1, config.rounds + 1):
            round_ = f" {number}" if config.rounds > 1 else ""
            stages.append(Stage(f"B{number}", "vlp", "cbp", config.b_epochs, f"VLP after B{round_}"))
            stages.append(Stage(f"F{number}", "cbp", "vlp", config.f_epochs, f"CBP after F{round_}"))
    if config.ensemble_epochs:
        stages.append(Stage("E", "cbp", "ensemble", config.ensemble_epochs, "CBP taught by the ensemble"))
    return (*stages, Stage("ensemble", "ensemble", None, 0, "ensemble"))
