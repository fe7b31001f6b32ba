"""The trainer: CBP warm-up, then B and F steps in turn (paper, supplement: training).

:func:`wtal.schedule.schedule` is the whole story; :class:`Trainer` carries it out, one :class:`Stage` after another.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wtal.branches import Branches
from wtal.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from wtal.config import RunConfig
from wtal.data.batches import Batch, TrainingBatches
from wtal.data.video import VideoSet
from wtal.device import Device
from wtal.distributed import ALONE, Peers
from wtal.errors import WtalError
from wtal.interrupt import Interruptible
from wtal.measure import Row, measure
from wtal.progress import Reporter, Work
from wtal.recipe import from_table
from wtal.run import Run
from wtal.schedule import Stage, schedule
from wtal.step import add_gradients
from wtal.teach import Lesson, teach

EMA = "moving average"
"""The branch that holds the moving average of the student's weights while a stage trains with one."""


class Trainer:
    """Trains the branches of a run and writes down what each stage bought."""

    def __init__(
        self,
        branches: Branches,
        data: VideoSet,
        run: Run,
        device: Device,
        reporter: Reporter,
        stages: Sequence[Stage] | None = None,
        peers: Peers = ALONE,
    ) -> None:
        self.branches = branches
        self.data = data
        self.videos = data.subset("train")
        self.run = run
        self.config: RunConfig = run.config  # of the stage at hand
        self.seed = run.setup.seed
        self.device = device
        self.reporter = reporter
        self.peers = peers  # the processes that train this run
        self.stages = tuple(schedule(run.config.schedule) if stages is None else stages)
        self.stage, self.epoch = 0, 0  # the next to train
        self.losses: dict[str, float] = {}  # of the epoch so far
        self.batch = 0  # batches of the epoch that are done
        self.lesson: Lesson | None = None  # the stage's pseudo-labels
        self.skipped = 0  # batches left out because their loss was not finite
        self.rows: list[Row] = []
        self.saved = 0  # checkpoints written
        self._optimizer_tensors: dict[str, Tensor] = {}
        self._random: dict[str, Tensor] = {}

    def fit(self) -> list[Row]:
        """Carry out the schedule from where it stands; returns the rows of the table."""
        with self.run.curves() as self.curves:
            while self.stage < len(self.stages):
                stage = self.stages[self.stage]
                self.config = from_table(stage.settings, self.run.config, f"stage {stage.name}")
                if stage.epochs:
                    self.train_stage(stage)
                lesson, self.lesson = self.lesson, None
                self.stage, self.epoch, self._optimizer_tensors = self.stage + 1, 0, {}
                self.measure(stage, lesson)
        return self.rows

    @property
    def number(self) -> int:
        """What the stage's order, crops and dropout are drawn by: its name, so that no other stage can change them."""
        return int.from_bytes(hashlib.sha256(self.stages[self.stage].name.encode()).digest()[:4], "big")

    def train_stage(self, stage: Stage) -> None:
        """All epochs of one stage; a checkpoint after each."""
        if stage.start and stage.student not in self.branches:
            self.branches.copy(stage.start, stage.student)
        if self.config.optimizer.ema and EMA not in self.branches:
            self.branches.copy(stage.student, EMA)
        optimizer = self.new_optimizer(self.branches[stage.student])
        restore_optimizer(optimizer, self._optimizer_tensors)
        if self.lesson is None and (stage.teacher or stage.labels == "truth"):
            self.lesson = self.teach(stage)
            self.save(optimizer)
        batches = TrainingBatches(
            self.data,
            self.videos,
            self.config.batch,
            self.seed,
            with_i3d=not self.branches.reads_clip(stage.student),
            with_clip=self.branches.reads_clip(stage.student),
            part=self.peers.part,
        )
        with self.reporter.work(f"{stage.name}: {stage.student}", stage.epochs * batches.videos, "videos") as work:
            work.advance(self.epoch * batches.videos)
            while self.epoch < stage.epochs:
                with Interruptible(self.peers) as interrupt:
                    self.train_epoch(stage, optimizer, batches, interrupt, work)
                    path = self.save(optimizer)
                    stop = interrupt.anywhere()
                if stop:
                    raise KeyboardInterrupt(f"interrupted; saved all that was trained in {path}")
        if EMA in self.branches:
            self.branches[stage.student].load_state_dict(self.branches[EMA].state_dict())
            del self.branches[EMA]

    def teach(self, stage: Stage) -> Lesson:
        """The lesson of a stage, its quality in the log."""
        self.branches.eval()
        seed = self.seed + 1_000_003 * (self.number + 1)
        lesson = teach(stage, self.branches, self.data, self.videos, self.config.distill, self.device, seed, self.peers)
        if lesson.quality.action:
            told = "  ".join(f"{name} {_share(value)}" for name, value in lesson.quality.rates().items())
            self.reporter.log_only(f"{stage.name}: {stage.labels} pseudo-labels of {stage.teacher}: {told}")
        return lesson

    def train_epoch(
        self,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        batches: TrainingBatches,
        interrupt: Interruptible,
        work: Work,
    ) -> None:
        """One epoch, or what is left of it; returns early when an interrupt is requested."""
        # Order, crops and dropout follow from (seed, stage, epoch); only within an epoch is there more to go on from.
        torch.manual_seed(
            self.seed + 1_000_003 * (self.number + 1) + 10_007 * self.epoch + 15_485_863 * self.peers.rank
        )
        self.restore_random()
        self.branches[stage.student].train()
        for batch in batches.epoch(1_000 * self.number + self.epoch, self.batch):
            terms = self.step(stage, optimizer, batch)
            self.batch += 1
            for name, value in terms.items():
                self.losses[name] = self.losses.get(name, 0.0) + value * batch.videos / batches.videos
            work.advance(batch.videos, {"loss": terms["loss"]} if terms else {})
            if self.batch < len(batches) and interrupt.anywhere():
                return
        self.epoch += 1
        self.log_epoch(stage, self.losses)
        waiting = max(self.peers.gather(batches.waiting()))
        self.reporter.log_only(f"{stage.name}: {waiting:.1%} of the time waiting for data")
        self.batch, self.losses = 0, {}

    def step(self, stage: Stage, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the loss and its terms, averaged over the batch's videos; nothing if skipped."""
        optimizer.zero_grad()
        terms = add_gradients(self.branches, stage.student, batch, self.lesson, self.config, self.device, self.peers)
        if not math.isfinite(terms["loss"]):
            self.bad_batch(stage, batch, terms["loss"])
            return {}
        self.peers.sum_gradients(self.branches[stage.student].parameters())
        if self.config.optimizer.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.branches[stage.student].parameters(), self.config.optimizer.clip_norm)
        optimizer.step()
        if EMA in self.branches:
            with torch.no_grad():
                pairs = zip(self.branches[EMA].parameters(), self.branches[stage.student].parameters(), strict=True)
                for mean, value in pairs:
                    mean.lerp_(value, 1 - self.config.optimizer.ema)
        return terms

    def bad_batch(self, stage: Stage, batch: Batch, loss: float) -> None:
        """Count a batch whose loss is not finite; an error when there are more than the run may skip."""
        self.skipped += 1
        allowed = self.run.setup.skip_bad_batches
        videos = ", ".join(self.videos[index].id for part in self.peers.gather(batch.index.tolist()) for index in part)
        where = f"{stage.name}, epoch {self.epoch + 1}, step {self.batch + 1}"
        told = f"the loss became {loss} in {where} (videos {videos})"
        if self.skipped > allowed:
            advice = f" after {allowed} skipped batches" if allowed else "; --skip-bad-batches N would leave it out"
            last = self.peers.first(self.run.checkpoints.newest)
            raise WtalError(f"{told}{advice}; {f'the last good checkpoint is {last}' if last else 'no checkpoint yet'}")
        self.reporter.say(f"skipped batch {self.skipped} of at most {allowed}: {told}")

    def new_optimizer(self, student: torch.nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser over what the student learns."""
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.config.optimizer.name]
        learned = [parameter for parameter in student.parameters() if parameter.requires_grad]
        return kind(learned, lr=self.config.optimizer.lr, weight_decay=self.config.optimizer.weight_decay)

    def measure(self, stage: Stage, lesson: Lesson | None) -> None:
        """Add a stage's row to the table, write it and the detections behind it, and save."""
        row, detections = measure(
            stage.row, stage.student, self.branches, self.data, self.config, self.device, self.peers
        )
        if lesson is not None and lesson.quality.action:
            row["pseudo_labels"] = lesson.quality.rates()
        self.rows.append(row)
        self.run.write_detections(stage.row, detections)
        self.run.write_rows(self.rows)
        self.reporter.say(f"{stage.row}: {row['kind']} mAP {row['mean']:.1f}")
        self.save(None)

    def log_epoch(self, stage: Stage, losses: dict[str, float]) -> None:
        """Losses of one epoch to the log and the curves."""
        told = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        self.reporter.log_only(f"{stage.name} epoch {self.epoch}/{stage.epochs}: {told}")
        for name, value in losses.items():
            self.curves.add_scalar(f"{stage.name}/{name}", value, self.epoch)

    def save(self, optimizer: torch.optim.Optimizer | None) -> Path:
        """Write the checkpoint that :meth:`resume` goes on from, and return where it is."""
        tensors = self.branches.tensors()
        if optimizer is not None:
            tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(optimizer).items()}
        if self.lesson is not None:
            tensors |= {f"lesson.{name}": tensor for name, tensor in self.lesson.tensors().items()}
        if self.batch:
            for rank, state in enumerate(self.peers.gather(self.random_state())):
                tensors |= {f"{_random(rank)}.{name}": tensor for name, tensor in state.items()}
        facts: dict[str, Any] = {
            **self.branches.facts,
            "stage": self.stage,
            "epoch": self.epoch,
            "batch": self.batch,
            "losses": self.losses,
            "skipped": self.skipped,
            "quality": None if self.lesson is None else vars(self.lesson.quality),
            "rows": self.rows,
        }
        path = self.run.checkpoints.save(tensors, facts, self.saved + 1)
        self.saved += 1
        return path

    def random_state(self) -> dict[str, Tensor]:
        """The state of the generators that dropout draws from."""
        state = {"cpu": torch.get_rng_state()}
        if self.device.name.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device.name)
        return state

    def restore_random(self) -> None:
        """Go on with the generators where :meth:`resume` found them, once."""
        if "cpu" in self._random:
            torch.set_rng_state(self._random["cpu"])
        if "cuda" in self._random and self.device.name.type == "cuda":
            torch.cuda.set_rng_state(self._random["cuda"], self.device.name)
        self._random = {}

    def resume(self, checkpoint: Checkpoint, number: int) -> None:
        """Put everything back as checkpoint ``number`` has it."""
        facts = checkpoint.facts
        if facts["classes"] != list(self.data.classes):
            raise WtalError(f"{checkpoint.path}: was trained on other classes than the data set has now")
        self.stage, self.epoch, self.rows = facts["stage"], facts["epoch"], facts["rows"]
        self.batch, self.losses, self.skipped, self.saved = facts["batch"], facts["losses"], facts["skipped"], number
        if [row["name"] for row in self.rows] != [stage.row for stage in self.stages[: self.stage]]:
            raise WtalError(f"{checkpoint.path}: was trained on another schedule; start a new run")
        for stage in self.stages[: self.stage + 1]:
            if stage.start and checkpoint.part(stage.student):
                self.branches.copy(stage.start, stage.student)
        if checkpoint.part(EMA):
            self.branches.copy(self.stages[self.stage].student, EMA)
        for name, branch in self.branches.items():
            branch.load_state_dict({**branch.state_dict(), **checkpoint.part(name)})
        self._optimizer_tensors = checkpoint.part("optimizer")
        self._random = checkpoint.part(_random(self.peers.rank))
        if packed := checkpoint.part("lesson"):
            self.lesson = Lesson.of_tensors(packed, facts["quality"])
            if len(self.lesson.targets) != len(self.videos):
                raise WtalError(
                    f"{checkpoint.path}: has pseudo-labels of {len(self.lesson.targets)} videos, the data set has "
                    f"{len(self.videos)} for training now"
                )


def _random(rank: int) -> str:
    """What a checkpoint calls the generators of one process."""
    return f"random.{rank}" if rank else "random"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
