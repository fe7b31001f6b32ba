"""The trainer: CBP warm-up, then B and F steps in turn (paper, supplement: training), or other schedules.

:func:`wtal.training.schedule.schedule` defines the stages and their order. :class:`Trainer` trains one
:class:`Stage` after another.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wtal.data.batches import Batch, TrainingBatches
from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.evaluation.table import Row, measure
from wtal.inference.branches import Branches
from wtal.platform.device import Device
from wtal.platform.distributed import SINGLE_PROCESS, Processes
from wtal.platform.interrupt import Interruptible
from wtal.platform.progress import Reporter, Work
from wtal.runs.checkpoint import Checkpoint
from wtal.runs.resume import check_same, training_facts
from wtal.runs.run import Run
from wtal.settings.config import RunConfig
from wtal.settings.recipe import from_table
from wtal.training.gradients import add_gradients
from wtal.training.loss_average import LossAverage, together
from wtal.training.pseudo_labels import PseudoLabels, make_pseudo_labels
from wtal.training.schedule import Stage, schedule
from wtal.training.student import Student, begin_copies, students_of


class Trainer:
    """Trains the branches of a run, and writes a checkpoint after every epoch and a result after every stage."""

    def __init__(
        self,
        branches: Branches,
        data: VideoSet,
        run: Run,
        device: Device,
        reporter: Reporter,
        stages: Sequence[Stage] | None = None,
        processes: Processes = SINGLE_PROCESS,
    ) -> None:
        self.branches = branches
        self.data = data
        self.videos = data.subset("train")
        self.run = run
        self.config: RunConfig = run.config  # the settings of the current stage
        self.seed = run.setup.seed
        self.device = device
        self.reporter = reporter
        self.processes = processes
        self.stages = tuple(schedule(run.config.schedule, data.has_clip) if stages is None else stages)
        self.stage_index, self.epoch = 0, 0  # the next epoch to train
        self.losses = LossAverage()  # the losses of the current epoch
        self.batch_index = 0  # the next batch of the current epoch
        self.skipped = 0  # batches left out, because the loss or the gradient was not finite
        self._skipped_last: tuple[int, int, int] | None = None  # stage, epoch and batch of the last skipped batch
        self.rows: list[Row] = []
        self.saved = 0  # the number of checkpoints written
        self.facts = {**branches.facts, "training": training_facts(data)}  # the same in every checkpoint of the run
        self._checkpoint: Checkpoint | None = None  # the checkpoint from which the current stage continues
        self._random: dict[str, Tensor] = {}

    def fit(self) -> list[Row]:
        """Train all stages that are left, and return the rows of the table."""
        with Interruptible(self.processes) as self.interrupt, self.run.curves() as self.curves:
            while self.stage_index < len(self.stages):
                stage = self.stages[self.stage_index]
                self.config = from_table(stage.settings, self.run.config, f"stage {stage.name}")
                begin_copies(stage, self.branches)
                pseudo_labels = self.train_stage(stage) if stage.length else None
                self.stage_index, self.epoch = self.stage_index + 1, 0
                self.measure(stage, pseudo_labels)
        return self.rows

    @property
    def number(self) -> int:
        """The part of the random seed that belongs to the current stage.

        It is a hash of the stage's name. So a stage has the same order, crops and dropout whatever stages come before.
        """
        return int.from_bytes(hashlib.sha256(self.stages[self.stage_index].name.encode()).digest()[:4], "big")

    def train_stage(self, stage: Stage) -> PseudoLabels | None:
        """Train all epochs of a stage, and return the last pseudo-labels of its first student."""
        students = students_of(stage, self.branches, self.config)
        if self._checkpoint is not None:
            for student in students:
                student.restore(self._checkpoint, len(self.videos))
            self._checkpoint = None
        batches = TrainingBatches(
            self.data,
            self.videos,
            self.config.batch,
            self.seed,
            with_i3d=not all(self.branches.reads_clip(student.name) for student in students),
            with_clip=any(self.branches.reads_clip(student.name) for student in students),
            part=self.processes.part,
            orders=max(len(self.branches.networks(student.name)) for student in students),
        )
        names = " and ".join(student.name for student in students)
        with self.reporter.work(f"{stage.name}: {names}", stage.length * batches.videos, "videos") as work:
            work.skip(self.epoch * batches.videos + min(self.batch_index * self.config.batch.size, batches.videos))
            while self.epoch < stage.length:
                self.prepare_pseudo_labels(stage, students)
                with self.interrupt.deferred():
                    self.train_epoch(stage, students, batches, work)
                    path = self.save(students)
                    if self.interrupt.anywhere():
                        raise KeyboardInterrupt(f"interrupted; saved all that was trained in {path}")
        for student in students:
            if student.ema is not None:
                student.ema.finish()
        return students[0].pseudo_labels

    def prepare_pseudo_labels(self, stage: Stage, students: Sequence[Student]) -> None:
        """Make pseudo-labels for every student that still learns and has none, and log their quality."""
        learning = [s for s in students if self.epoch < s.epochs and (s.teacher or stage.labels == "truth")]
        waiting = [student for student in learning if student.pseudo_labels is None]
        seed = self.seed + 1_000_003 * (self.number + 1)
        self.branches.eval()
        for student in waiting:
            own = replace(stage, student=student.name, teacher=student.teacher)
            pseudo_labels = make_pseudo_labels(
                own, self.branches, self.data, self.videos, self.config, self.device, seed, self.processes
            )
            if pseudo_labels.quality.action:
                shares = "  ".join(f"{name} {_share(value)}" for name, value in pseudo_labels.quality.rates().items())
                self.reporter.log_only(f"{stage.name}: {stage.labels} pseudo-labels of {student.teacher}: {shares}")
            student.pseudo_labels = pseudo_labels
        if waiting:
            self.save(students)

    def train_epoch(self, stage: Stage, students: Sequence[Student], batches: TrainingBatches, work: Work) -> None:
        """Train the rest of the current epoch; return early if an interrupt is requested."""
        # Order, crops and dropout depend on seed, stage and epoch. A run that was interrupted inside an epoch also
        # needs the state of the generators.
        torch.manual_seed(
            self.seed + 1_000_003 * (self.number + 1) + 10_007 * self.epoch + 15_485_863 * self.processes.rank
        )
        self.restore_random()
        learning = [student for student in students if self.epoch < student.epochs]
        for student in learning:
            self.branches[student.name].train()
        stream = batches.epoch(1_000 * self.number + self.epoch, self.batch_index)
        while self.batch_index < len(batches):
            each = self.step(stage, learning, itertools.islice(stream, batches.orders))
            terms = together(each) if stage.second else each[stage.student]
            size = self.config.batch.size
            videos = min(size, batches.videos - self.batch_index * size)
            self.batch_index += 1
            self.losses.add(terms, videos, batches.videos)
            work.advance(videos, {"loss": terms["loss"]} if "loss" in terms else {})
            if self.batch_index < len(batches) and self.interrupt.anywhere():
                return
        self.epoch += 1
        for student in learning:
            if stage.second and self.epoch < student.epochs:
                student.pseudo_labels = None  # the teacher has changed
        self.log_epoch(stage, self.losses.means(batches.videos))
        waiting = max(self.processes.gather(batches.waiting()))
        self.reporter.log_only(f"{stage.name}: {waiting:.1%} of the time waiting for data")
        self.batch_index, self.losses = 0, LossAverage()

    def step(self, stage: Stage, students: Sequence[Student], batches: Iterable[Batch]) -> dict[str, dict[str, float]]:
        """Do one optimiser step of each student.

        Args:
            stage: the current stage.
            students: the students that learn now.
            batches: network n of a student learns from batch n.

        Returns:
            for each student the loss and its terms, averaged over the videos of its batches; empty if the step was
            skipped.
        """
        terms: dict[str, list[dict[str, float]]] = {student.name: [] for student in students}
        videos: list[Tensor] = []
        for student in students:
            student.optimizer.zero_grad()
        gradients = partial(
            add_gradients, self.branches, config=self.config, device=self.device, processes=self.processes
        )
        for network, batch in enumerate(batches):
            videos.append(batch.index)
            for student in students:
                if network < len(self.branches.networks(student.name)):
                    terms[student.name].append(gradients(student.name, batch, student.pseudo_labels, network=network))
        return {student.name: self.update(stage, student, terms[student.name], videos) for student in students}

    def update(
        self, stage: Stage, student: Student, terms: Sequence[dict[str, float]], videos: Sequence[Tensor]
    ) -> dict[str, float]:
        """Update the weights of a student by the gradients of its networks.

        Args:
            stage: the current stage.
            student: the student.
            terms: the loss of each of its networks, and the terms of that loss.
            videos: the videos of each batch, by index.

        Returns:
            the means of the terms; empty if a loss or a gradient was not finite and the step was skipped.
        """
        networks = self.branches.networks(student.name)
        which = [
            f" of network {n} of {len(networks)}" if len(networks) > 1 else "" for n in range(1, 1 + len(networks))
        ]
        for own, index, name in zip(terms, videos, which, strict=False):
            if not math.isfinite(own["loss"]):
                self.bad_batch(stage, index, f"the loss{name} became {own['loss']}")
                return {}
        self.processes.sum_gradients(list(self.branches[student.name].parameters()))
        for network, index, name in zip(networks, videos, which, strict=False):
            norm = clipped(network, self.config.optimizer.clip_norm)
            if not math.isfinite(norm):
                self.bad_batch(stage, index, f"the gradient's norm{name} became {norm}")
                return {}
        student.optimizer.step()
        if student.ema is not None:
            student.ema.update()
        return {name: sum(own[name] for own in terms) / len(terms) for name in terms[0]}

    def bad_batch(self, stage: Stage, index: Tensor, fault: str) -> None:
        """Skip a step whose loss or gradient is not finite. The students of a step count it only once.

        Args:
            stage: the current stage.
            index: the videos of the network's batch that belong to this process.
            fault: what is not finite.

        Raises:
            WtalError: the run may not skip so many batches.
        """
        here = (self.stage_index, self.epoch, self.batch_index)
        self.skipped += here != self._skipped_last
        self._skipped_last = here
        allowed = self.run.setup.skip_bad_batches
        videos = ", ".join(self.videos[video].id for part in self.processes.gather(index.tolist()) for video in part)
        where = f"{stage.name}, epoch {self.epoch + 1}, step {self.batch_index + 1}"
        message = f"{fault} in {where} (videos {videos})"
        if self.skipped > allowed:
            advice = f" after {allowed} skipped batches" if allowed else "; --skip-bad-batches N would leave it out"
            raise WtalError(f"{message}{advice}; {self.last_good()}")
        self.reporter.say(f"skipped batch {self.skipped} of at most {allowed}: {message}")

    def last_good(self) -> str:
        """A message that names the last checkpoint; every checkpoint is good (:meth:`check_weights`)."""
        last = self.processes.from_rank_zero(self.run.checkpoints.newest)
        return f"the last good checkpoint is {last}" if last else "no checkpoint yet"

    def check_weights(self) -> None:
        """Check the weights before a checkpoint is written, because a new checkpoint replaces an older good one.

        Raises:
            WtalError: a weight is not finite.
        """
        for name, branch in self.branches.items():
            if not all(parameter.isfinite().all() for parameter in branch.parameters() if parameter.requires_grad):
                raise WtalError(f"the weights of {name} are no longer finite (--optimizer.lr?); {self.last_good()}")

    def measure(self, stage: Stage, pseudo_labels: PseudoLabels | None) -> None:
        """Measure a stage: write its row of the table, its detections and a checkpoint."""
        row, detections = measure(
            stage.row, stage.student, self.branches, self.data, self.config, self.device, self.processes
        )
        if pseudo_labels is not None and pseudo_labels.quality.action:
            row["pseudo_labels"] = pseudo_labels.quality.rates()
        self.rows.append(row)
        self.run.write_detections(stage.row, detections)
        self.run.write_rows(self.rows)
        result = "no mAP" if row["mean"] is None else f"{row['kind']} mAP {row['mean']:.1f}"
        self.reporter.say(f"{stage.row}: {result}")
        self.save(())

    def log_epoch(self, stage: Stage, losses: dict[str, float]) -> None:
        """Write the losses of an epoch to the log and to the curves."""
        terms = "  ".join(f"{name} {value:.4f}" for name, value in losses.items())
        self.reporter.log_only(f"{stage.name} epoch {self.epoch}/{stage.length}: {terms}")
        for name, value in losses.items():
            self.curves.add_scalar(f"{stage.name}/{name}", value, self.epoch)

    def save(self, students: Sequence[Student]) -> Path:
        """Write a checkpoint from which :meth:`resume` can continue, and return its path."""
        self.check_weights()
        tensors = self.branches.tensors()
        for student in students:
            tensors |= student.tensors()
        if self.batch_index:
            for rank, state in enumerate(self.processes.gather(self.random_state())):
                tensors |= {f"{_random(rank)}.{name}": tensor for name, tensor in state.items()}
        facts: dict[str, Any] = {
            **self.facts,
            "stage": self.stage_index,
            "epoch": self.epoch,
            "batch": self.batch_index,
            "losses": self.losses.sums,
            "counted": self.losses.videos,
            "skipped": self.skipped,
            "rows": self.rows,
        }
        for student in students:
            facts |= student.facts()
        path = self.run.checkpoints.save(tensors, facts, self.saved + 1)
        self.saved += 1
        return path

    def random_state(self) -> dict[str, Tensor]:
        """The state of the random generators that dropout uses."""
        state = {"cpu": torch.get_rng_state()}
        if self.device.name.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device.name)
        return state

    def restore_random(self) -> None:
        """Restore the generator states that :meth:`resume` read. Later calls do nothing."""
        if "cpu" in self._random:
            torch.set_rng_state(self._random["cpu"])
        if "cuda" in self._random and self.device.name.type == "cuda":
            torch.cuda.set_rng_state(self._random["cuda"], self.device.name)
        self._random = {}

    def resume(self, checkpoint: Checkpoint, number: int) -> None:
        """Restore the state of training from checkpoint ``number``.

        Raises:
            WtalError: the checkpoint was trained on other data, with other settings or on another schedule.
        """
        facts = checkpoint.facts
        check_same(checkpoint, self.facts, self.run.config)
        self.stage_index, self.epoch, self.rows = facts["stage"], facts["epoch"], facts["rows"]
        self.batch_index, self.skipped, self.saved = facts["batch"], facts["skipped"], number
        self.losses = LossAverage(facts["losses"], facts.get("counted"))
        if [row["name"] for row in self.rows] != [stage.row for stage in self.stages[: self.stage_index]]:
            raise WtalError(f"{checkpoint.path}: was trained on another schedule; start a new run")
        for stage in self.stages[: self.stage_index + 1]:
            for name, start in stage.starts.items():
                if start and checkpoint.part(name):
                    self.branches.copy(start, name)
        for name, branch in self.branches.items():
            branch.load_state_dict({**branch.state_dict(), **checkpoint.part(name)})
        self._checkpoint, self._random = checkpoint, checkpoint.part(_random(self.processes.rank))


def clipped(network: nn.Module, longest: float) -> float:
    """Scale the gradient of a network to at most this norm, 0 for no limit; return its norm before.

    The norm is computed without a limit too: a finite loss can have a gradient that is not finite, which would destroy
    the weights.
    """
    learned = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return float(
        torch.nn.utils.clip_grad_norm_(learned, longest)
        if longest > 0
        else torch.nn.utils.get_total_norm([p.grad for p in learned if p.grad is not None])
    )


def _random(rank: int) -> str:
    """The name of the generator states of one process in a checkpoint."""
    return f"random.{rank}" if rank else "random"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
