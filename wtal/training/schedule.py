"""The schedules as lists of stages: the paper's schedule, the online schedule, and the schedule of CBP alone.

The package wtal.ablation defines the schedules of its variants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wtal.settings.config import ScheduleConfig


@dataclass(frozen=True)
class SecondStudent:
    """A second student of a stage. In every step both learn, each from the moving average of the other.

    Attributes:
        student: a branch.
        epochs: the epochs in which it learns. The student with fewer epochs then only teaches.
        start: as :attr:`Stage.start`.
    """

    student: str
    epochs: int
    start: str | None = None


@dataclass(frozen=True)
class Stage:
    """One stage of training: a student is trained, with pseudo-labels if it has a teacher, and then measured.

    Attributes:
        name: the name in the log and in the progress display.
        student: a branch. If ``epochs`` is 0, it may also be an ensemble, ``a+b``.
        teacher: a branch or an ensemble; None: train with video labels only.
        epochs: passes over the training videos; 0: only measure.
        row: the title of the stage's row in the table.
        start: the branch that the student begins as a copy of; None: the student exists and continues.
        labels: the kind of pseudo-labels. ``ranked`` is the method; the others are for comparison. ``shuffled``
            permutes the labels of each video in time. ``shifted`` rotates them by a quarter of the video or more, which
            keeps neighbours together. ``truth`` is the ground truth.
        settings: section -> key -> value; these settings replace those of the run in this stage.
        second: a second student. ``teacher`` is None then, and new pseudo-labels are made every epoch.
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
        """``B`` trains VLP, or a copy of it named ``vlp ...``; ``F`` trains CBP.

        Each has its own shares of pseudo-labels in the settings.
        """
        return "B" if self.student.split()[0] == "vlp" else "F"

    @property
    def length(self) -> int:
        """The epochs of the stage: those of the student that learns longer."""
        return max(self.epochs, self.second.epochs if self.second else 0)

    @property
    def starts(self) -> dict[str, str | None]:
        """The ``start`` of each student, by name."""
        return {self.student: self.start, **({self.second.student: self.second.start} if self.second else {})}


def schedule(config: ScheduleConfig, has_clip: bool = True) -> tuple[Stage, ...]:
    """The stages of a run, in order.

    They are: warm-up, zero-shot VLP, the control (optional), self-training (optional), B and F in turn, a stage with
    the ensemble as the teacher (optional), and the ensemble. With kind ``online`` one stage replaces the B and F
    stages; it has the same number of epochs for each branch. CBP alone has only warm-up, control and self-training.
    It has a control only if there is self-training, because the control is compared with that.

    Args:
        config: the settings of the schedule.
        has_clip: whether the data have CLIP features. Without them, kind ``auto`` trains CBP alone.
    """
    alone = config.kind == "cbp" or (config.kind == "auto" and not has_clip)
    stages = [Stage("warmup", "cbp", None, config.warmup_epochs, "CBP after warm-up")]
    if not alone:
        stages.append(Stage("zero-shot", "vlp", None, 0, "VLP zero-shot"))
    taught = config.self_training + (0 if alone else config.rounds)  # the number of stages in which CBP has a teacher
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
