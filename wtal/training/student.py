"""The student of a stage: a branch with its optimiser, its moving average (EMA) and its pseudo-labels."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from wtal.errors import WtalError
from wtal.inference.branches import Branches
from wtal.runs.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from wtal.settings.config import OptimizerConfig, RunConfig
from wtal.training.ema import EMA, MovingAverage
from wtal.training.pseudo_labels import PseudoLabels
from wtal.training.schedule import Stage


class Student:
    """A branch that learns in one stage.

    Attributes:
        name: the name of the branch.
        teacher: the name of the branch or ensemble whose pseudo-labels it learns from; None: video labels only.
        epochs: the number of epochs in which it learns.
        optimizer: a new optimiser of the branch's learned parameters.
        ema: the exponential moving average (EMA) of its weights, None without one.
        pseudo_labels: its pseudo-labels, None until they are made.
    """

    def __init__(
        self,
        branches: Branches,
        name: str,
        teacher: str | None,
        epochs: int,
        config: OptimizerConfig,
        decay: float | None,
        mark: str = "",
    ) -> None:
        """``decay`` is the decay of the EMA, None for no EMA. ``mark`` is put before all names in a checkpoint; the
        students of a stage need different marks."""
        self.name = name
        self.teacher = teacher
        self.epochs = epochs
        self.pseudo_labels: PseudoLabels | None = None
        self.ema = None if decay is None else MovingAverage(branches, name, mark + EMA, decay)
        self._mark = mark
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.name]
        learned = [parameter for parameter in branches[name].parameters() if parameter.requires_grad]
        # The fused optimiser makes one pass over the weights. Without it, temporaries make the update
        # on the CPU cost six times as much.
        self.optimizer: torch.optim.Optimizer = kind(
            learned, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that a checkpoint stores in addition to those of the branches."""
        parts = {"optimizer": optimizer_tensors(self.optimizer)}
        if self.pseudo_labels is not None:
            parts["pseudo_labels"] = self.pseudo_labels.tensors()
        return {f"{self._mark}{part}.{key}": value for part, values in parts.items() for key, value in values.items()}

    def facts(self) -> dict[str, Any]:
        """The facts of the student that a checkpoint stores."""
        return {f"{self._mark}quality": None if self.pseudo_labels is None else asdict(self.pseudo_labels.quality)}

    def restore(self, checkpoint: Checkpoint, videos: int) -> None:
        """Restore the state of the student from a checkpoint of the same stage.

        Args:
            checkpoint: the checkpoint.
            videos: the number of training videos now.

        Raises:
            WtalError: the checkpoint has pseudo-labels of another number of videos.
        """
        restore_optimizer(self.optimizer, checkpoint.part(f"{self._mark}optimizer"))
        if self.ema is not None and (stored := checkpoint.part(f"{self._mark}{EMA}")):
            self.ema.restore(stored)
        if packed := checkpoint.part(f"{self._mark}pseudo_labels"):
            self.pseudo_labels = PseudoLabels.of_tensors(packed, checkpoint.facts[f"{self._mark}quality"])
            if len(self.pseudo_labels.targets) != videos:
                raise WtalError(
                    f"{checkpoint.path}: has pseudo-labels of {len(self.pseudo_labels.targets)} videos, the data set "
                    f"has {videos} for training now"
                )


def begin_copies(stage: Stage, branches: Branches) -> None:
    """Copy the branches from which the students of a stage start, also if the stage only measures them."""
    for name, start in stage.starts.items():
        if start and name not in branches:
            branches.copy(start, name)


def students_of(stage: Stage, branches: Branches, config: RunConfig) -> tuple[Student, ...]:
    """The students of a stage."""
    if stage.second is None:
        decay = config.optimizer.ema or None
        return (Student(branches, stage.student, stage.teacher, stage.epochs, config.optimizer, decay),)
    epochs = {stage.student: stage.epochs, stage.second.student: stage.second.epochs}
    other = {stage.student: f"{stage.second.student}'s {EMA}", stage.second.student: f"{stage.student}'s {EMA}"}
    return tuple(
        Student(branches, name, other[name], epochs[name], config.optimizer, config.schedule.online_ema, f"{name}'s ")
        for name in epochs
    )
