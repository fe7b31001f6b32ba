"""The ablation in one world: one resumable run of :class:`wtal.training.trainer.Trainer` per group of variants."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from wtal.ablation.variants import RANDOM, group_stages
from wtal.about import versions
from wtal.errors import WtalError
from wtal.evaluation.table import Row
from wtal.platform.device import choose_device
from wtal.platform.files import write_atomically
from wtal.platform.progress import Reporter
from wtal.runs.run import VERSIONS, Run
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig
from wtal.settings.recipe import load_recipe
from wtal.training.job import prepare
from wtal.training.schedule import Stage

AND = "; "
"""The separator in a provenance field with several values, e.g. if a run was resumed on another machine."""


@dataclass(frozen=True)
class World:
    """One generated data set, with the seed and the recipe of training.

    Attributes:
        benchmark: a key of :data:`wtal.data.open.BENCHMARKS`.
        number: seed of the data.
        seed: seed of weights, order, crops and dropout.
        recipe: name or path of the recipe.
    """

    benchmark: str
    number: int
    seed: int
    recipe: str

    def folder(self, root: Path) -> Path:
        """The folder of the runs in this world; ``root`` is the folder of all runs."""
        return root / f"{self.benchmark}-{Path(self.recipe).stem}" / f"world{self.number}-seed{self.seed}"


class RandomScores(nn.Module):
    """A branch that ignores its input: standard normal logits, the same in every call."""

    reach: int | None = None
    stride = 1

    def __init__(self, num_classes: int, seed: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.seed = seed

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """``[B, T, C]`` for features ``[B, T, D]``."""
        random = torch.Generator().manual_seed(self.seed)
        shape = (*features.shape[:2], self.num_classes)
        return torch.randn(shape, generator=random).to(features.device)


def run_group(root: Path, world: World, group: str, only: tuple[str, ...] | None = None) -> list[Row]:
    """Train and measure one group of variants in one world, or resume an interrupted run.

    Groups other than ``core`` start from the last checkpoint of ``core``, which must be complete. One CPU thread is
    used, because several worlds run at the same time and results depend on the number of threads.

    Args:
        root: folder of all runs.
        world: the world to train on.
        group: one of :data:`wtal.ablation.variants.GROUPS`.
        only: titles of the rows to make; all stages up to the last of them are run. None: all rows.

    Returns:
        The rows of the group, without those of ``core``.

    Raises:
        WtalError: the folder has a run with other settings, ``core`` has no checkpoint, or training failed.
    """
    torch.set_num_threads(1)
    recipe = load_recipe(world.recipe)
    core = group_stages("core", recipe.config.schedule)
    before: tuple[Stage, ...] = () if group == "core" else core
    own = core if group == "core" else group_stages(group, recipe.config.schedule)
    if only is not None:
        own = own[: 1 + max(place for place, stage in enumerate(own) if stage.row in only)]
    folder = world.folder(root) / group
    if (folder / "config.toml").is_file():
        run = _opened(folder, world)
    else:
        setup = Setup(
            shapes=world.benchmark,
            world=world.number,
            seed=world.seed,
            recipe=world.recipe,
            device="cpu",
            precision="float32",
            threads=1,
        )
        run = Run.create(folder, setup, recipe.config, recipe.source, made_on(world.benchmark))
    run.lock()
    try:
        if before and run.checkpoints.newest() is None:
            last = Run.open(world.folder(root) / "core").checkpoints.newest()
            if last is None:
                raise WtalError(f"{world.folder(root)}: nothing trained by group core to go on from")
            write_atomically(run.checkpoints.folder / last.name, last.read_bytes())
        trainer = prepare(run, choose_device("cpu", "float32"), Reporter(Console(), True, run.log), (*before, *own))
        trainer.branches[RANDOM] = RandomScores(len(trainer.data.classes), world.seed)
        if trainer.stage_index < len(trainer.stages):
            also_made_on(run, made_on(world.benchmark))
        return trainer.fit()[len(before) :]
    finally:
        run.unlock()


def _opened(folder: Path, world: World) -> Run:
    """Open a run of a world.

    Raises:
        WtalError: it was trained with other settings than the recipe has.
    """
    run = Run.open(folder)
    if _stages_aside(run.config) != _stages_aside(load_recipe(world.recipe).config):
        raise WtalError(f"{folder}: was trained by another {world.recipe} than today's; choose another --runs")
    return run


def _stages_aside(config: RunConfig) -> RunConfig:
    """The settings without the kind of schedule, which has no effect here because an ablation has its own stages."""
    return replace(config, schedule=replace(config.schedule, kind="auto"))


def recorded(root: Path, world: World, group: str) -> tuple[list[Row], dict[str, Any]] | None:
    """The rows that a group has so far, and their provenance; None if it has no row yet.

    Raises:
        WtalError: the folder has a run with other settings, or a file of the run is damaged.
    """
    folder = world.folder(root) / group
    if not (folder / "metrics.json").is_file():
        return None
    run = _opened(folder, world)
    rows = run.rows()
    if group != "core":
        rows = rows[len(group_stages("core", load_recipe(world.recipe).config.schedule)) :]
    return rows, run.versions()


def made_on(benchmark: str = "small") -> dict[str, str | None]:
    """The provenance of results: all that they depend on besides recipe, world and seed.

    Args:
        benchmark: the benchmark whose generator version is included.
    """
    return {**versions(), "commit": commit(), "generator": generator_of(benchmark), "machine": machine()}


def generator_of(benchmark: str) -> str:
    """The version of the generator of a benchmark."""
    from wtal.data.open import BENCHMARKS

    return str(BENCHMARKS[benchmark].version)


def machine() -> str:
    """The CPU and the operating system as text."""
    path, names = Path("/proc/cpuinfo"), list[str]()
    if path.is_file():
        lines = path.read_text(errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} CPUs, {platform.system()}"


def also_made_on(run: Run, now: Mapping[str, str | None]) -> None:
    """Add the current provenance to that of a resumed run, where they differ.

    Args:
        run: the resumed run.
        now: the provenance of this process.
    """
    made = run.versions()
    both = {name: AND.join(dict.fromkeys((*str(made.get(name)).split(AND), str(value)))) for name, value in now.items()}
    if both != made:
        write_atomically(run.folder / VERSIONS, json.dumps(both, indent=1).encode())


def commit() -> str | None:
    """The commit of the source tree, marked as dirty if it has changes; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
