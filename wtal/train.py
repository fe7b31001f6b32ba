"""The trainer: CBP warm-up, then B and F steps in turn (paper, supplement: training).

:func:`schedule` is the whole story; :class:`Trainer` carries it out, one :class:`Stage` after another.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wtal.branches import Branches
from wtal.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from wtal.config import RunConfig, ScheduleConfig
from wtal.data.batches import Batch, TrainingBatches
from wtal.data.predictions import write_predictions
from wtal.data.truth import snippet_truth
from wtal.data.video import VideoSet
from wtal.device import Device
from wtal.distill import PseudoLabelQuality, pseudo_label_quality, pseudo_labels, step_loss
from wtal.errors import WtalError
from wtal.infer import frame_logits
from wtal.interrupt import Interruptible
from wtal.measure import Row, measure
from wtal.progress import Reporter, Work
from wtal.run import Run
from wtal.targets import pack_targets, unpack_targets


@dataclass(frozen=True)
class Stage:
    """One step of the schedule: ``student`` trains for ``epochs``, on ``teacher``'s pseudo-labels if it has one."""

    name: str
    student: str
    teacher: str | None
    epochs: int
    row: str


def schedule(config: ScheduleConfig) -> tuple[Stage, ...]:
    """Warm-up, the control if asked for, then B, F, B, F ..."""
    stages = [Stage("warmup", "cbp", None, config.warmup_epochs, "CBP after warm-up")]
    if config.control:
        epochs = config.f_epochs * config.rounds
        stages.append(Stage("control", "control", None, epochs, "CBP as long, no teacher"))
    for number in range(1, config.rounds + 1):
        round_ = f" {number}" if config.rounds > 1 else ""
        stages.append(Stage(f"B{number}", "vlp", "cbp", config.b_epochs, f"VLP after B{round_}"))
        stages.append(Stage(f"F{number}", "cbp", "vlp", config.f_epochs, f"CBP after F{round_}"))
    return tuple(stages)


class Trainer:
    """Trains the branches of a run and writes down what each stage bought."""

    def __init__(self, branches: Branches, data: VideoSet, run: Run, device: Device, reporter: Reporter) -> None:
        self.branches = branches
        self.data = data
        self.videos = data.subset("train")
        self.run = run
        self.config: RunConfig = run.config
        self.seed = run.setup.seed
        self.device = device
        self.reporter = reporter
        self.stages = schedule(self.config.schedule)
        self.stage, self.epoch = 0, 0  # the next to train
        self.losses: dict[str, float] = {}  # of the epoch so far
        self.batch = 0  # batches of the epoch that are done
        self.targets: list[Tensor] | None = None  # the stage's pseudo-labels
        self.skipped = 0  # batches left out because their loss was not finite
        self.rows: list[Row] = []
        self.saved = 0  # checkpoints written
        self._optimizer_tensors: dict[str, Tensor] = {}
        self._random: dict[str, Tensor] = {}

    def fit(self) -> list[Row]:
        """Carry out the schedule from where it stands; returns the rows of the table."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(self.run.folder / "tensorboard") as self.curves:
            if not self.rows:
                self.measure("VLP zero-shot", "vlp")
            while self.stage < len(self.stages):
                stage = self.stages[self.stage]
                self.train_stage(stage)
                self.stage, self.epoch, self._optimizer_tensors, self.targets = self.stage + 1, 0, {}, None
                self.measure(stage.row, stage.student)
            if not any(row["branch"] == "ensemble" for row in self.rows):
                self.measure("ensemble", "ensemble")
        return self.rows

    def train_stage(self, stage: Stage) -> None:
        """All epochs of one stage; a checkpoint after each."""
        if stage.student == "control" and "control" not in self.branches:
            self.branches["control"] = copy.deepcopy(self.branches["cbp"])
        optimizer = self.new_optimizer(self.branches[stage.student])
        restore_optimizer(optimizer, self._optimizer_tensors)
        if stage.teacher and self.targets is None:
            self.targets = self.teach(stage)
            self.save(optimizer)
        batches = TrainingBatches(
            self.data,
            self.videos,
            self.config.batch,
            self.seed,
            with_i3d=stage.student != "vlp",
            with_clip=stage.student == "vlp",
        )
        with self.reporter.work(f"{stage.name}: {stage.student}", stage.epochs * len(self.videos), "videos") as work:
            work.advance(self.epoch * len(self.videos))
            while self.epoch < stage.epochs:
                with Interruptible() as interrupt:
                    self.train_epoch(stage, optimizer, batches, interrupt, work)
                    path = self.save(optimizer)
                if interrupt.requested:
                    raise KeyboardInterrupt(f"interrupted; saved all that was trained in {path}")

    def train_epoch(
        self,
        stage: Stage,
        optimizer: torch.optim.Optimizer,
        batches: TrainingBatches,
        interrupt: Interruptible,
        work: Work,
    ) -> None:
        """One pass over the training videos, or what is left of it; returns early when an interrupt is requested."""
        # Order, crops and dropout follow from (seed, stage, epoch); only within an epoch is there more to go on from.
        torch.manual_seed(self.seed + 1_000_003 * (self.stage + 1) + 10_007 * self.epoch)
        self.restore_random()
        self.branches[stage.student].train()
        for batch in batches.epoch(1_000 * self.stage + self.epoch, self.batch):
            terms = self.step(stage, optimizer, batch)
            self.batch += 1
            for name, value in terms.items():
                self.losses[name] = self.losses.get(name, 0.0) + value * len(batch.lengths) / len(self.videos)
            work.advance(len(batch.lengths), {"loss": terms["loss"]} if terms else {})
            if interrupt.requested and self.batch < len(batches):
                return
        self.epoch += 1
        self.log_epoch(stage, self.losses)
        self.batch, self.losses = 0, {}

    def teach(self, stage: Stage) -> list[Tensor]:
        """The teacher's pseudo-labels for every training video, int8 ``[T, C]``, fixed for the stage."""
        assert stage.teacher is not None
        self.branches.eval()
        logits = frame_logits(self.branches, stage.teacher, self.data, self.videos, self.device)
        distill = self.config.distill
        high, low = (
            (distill.b_foreground, distill.b_background)
            if stage.student == "vlp"
            else (distill.f_foreground, distill.f_background)
        )
        targets, quality = [], PseudoLabelQuality()
        for video, scores in zip(self.videos, logits, strict=True):
            labels = torch.from_numpy(self.data.multi_hot(video))[None]
            length = torch.tensor([len(scores)])
            target = pseudo_labels(scores[None], length, labels, high, low)
            targets.append(target[0])
            if video.instances is not None:  # for the log; the student never sees it
                truth = snippet_truth(self.data, video, len(scores))[None]
                quality += pseudo_label_quality(target, truth, length, labels)
        if quality.action:
            told = "  ".join(
                f"{kind} precision {_share(getattr(quality, f'{kind}_precision'))} "
                f"recall {_share(getattr(quality, f'{kind}_recall'))}"
                for kind in ("foreground", "background")
            )
            self.reporter.log_only(f"{stage.name}: pseudo-labels of {stage.teacher}: {told}")
        return targets

    def step(self, stage: Stage, optimizer: torch.optim.Optimizer, batch: Batch) -> dict[str, float]:
        """One optimiser step; returns the loss and its terms, averaged over the batch's videos; nothing if skipped."""
        here = batch.to(self.device.name)
        with self.device.autocast():
            logits = self.branches.logits(stage.student, here)
        logits = logits.float()
        target = None
        if self.targets is not None:
            target = crop_targets(self.targets, batch, logits.shape[1]).to(self.device.name)
        terms = step_loss(logits, here.lengths, here.labels, self.config.loss, target)
        loss = terms.pop("total").mean()
        if not torch.isfinite(loss):
            self.bad_batch(stage, batch, loss.item())
            return {}
        optimizer.zero_grad()
        loss.backward()
        if self.config.optimizer.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(self.branches[stage.student].parameters(), self.config.optimizer.clip_norm)
        optimizer.step()
        return {"loss": loss.item(), **{name: term.mean().item() for name, term in terms.items()}}

    def bad_batch(self, stage: Stage, batch: Batch, loss: float) -> None:
        """Count a batch whose loss is not finite; an error when there are more than the run may skip."""
        self.skipped += 1
        allowed = self.run.setup.skip_bad_batches
        videos = ", ".join(self.videos[index].id for index in batch.index.tolist())
        where = f"{stage.name}, epoch {self.epoch + 1}, step {self.batch + 1}"
        told = f"the loss became {loss} in {where} (videos {videos})"
        if self.skipped > allowed:
            advice = f" after {allowed} skipped batches" if allowed else "; --skip-bad-batches N would leave it out"
            raise WtalError(f"{told}{advice}; the last good checkpoint is {self.run.checkpoints.newest()}")
        self.reporter.say(f"skipped batch {self.skipped} of at most {allowed}: {told}")

    def new_optimizer(self, student: torch.nn.Module) -> torch.optim.Optimizer:
        """A fresh optimiser over what the student learns."""
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.config.optimizer.name]
        learned = [parameter for parameter in student.parameters() if parameter.requires_grad]
        return kind(learned, lr=self.config.optimizer.lr, weight_decay=self.config.optimizer.weight_decay)

    def measure(self, name: str, branch: str) -> None:
        """Add a row to the table, write it and the detections behind it, and save."""
        row, detections = measure(name, branch, self.branches, self.data, self.config, self.device)
        self.rows.append(row)
        write_predictions(self.run.folder / "predictions" / f"{slug(name)}.json", detections)
        self.run.write_rows(self.rows)
        self.reporter.say(f"{name}: {row['kind']} mAP {row['mean']:.1f}")
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
        if self.targets is not None:
            tensors |= {f"targets.{name}": tensor for name, tensor in pack_targets(self.targets).items()}
        if self.batch:
            tensors |= {f"random.{name}": tensor for name, tensor in self.random_state().items()}
        facts: dict[str, Any] = {
            **self.branches.facts,
            "stage": self.stage,
            "epoch": self.epoch,
            "batch": self.batch,
            "losses": self.losses,
            "skipped": self.skipped,
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
        if checkpoint.part("control"):
            self.branches["control"] = copy.deepcopy(self.branches["cbp"])
        for name, branch in self.branches.items():
            branch.load_state_dict({**branch.state_dict(), **checkpoint.part(name)})
        self._optimizer_tensors = checkpoint.part("optimizer")
        self._random = checkpoint.part("random")
        if packed := checkpoint.part("targets"):
            self.targets = unpack_targets(packed)
            if len(self.targets) != len(self.videos):
                raise WtalError(
                    f"{checkpoint.path}: has pseudo-labels of {len(self.targets)} videos, the data set has "
                    f"{len(self.videos)} for training now"
                )


def crop_targets(targets: list[Tensor], batch: Batch, width: int) -> Tensor:
    """Pseudo-labels of the batch's crops: int8 ``[B, width, C]``, -1 (ignored) beyond each crop."""
    rows = zip(batch.index.tolist(), batch.start.tolist(), batch.lengths.tolist(), strict=True)
    cropped = torch.full((len(batch.lengths), width, targets[0].shape[1]), -1, dtype=torch.int8)
    for row, (index, start, length) in enumerate(rows):
        cropped[row, :length] = targets[index][start : start + length]
    return cropped


def slug(title: str) -> str:
    """A row's title as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
