"""The setup of a run: the options of the command line that are not settings. This module does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from wtal.data.folds import parse_fold
from wtal.data.synthetic.write_layouts import Layout
from wtal.errors import WtalError

Precision = Literal["auto", "float32", "bf16"]

CHANGEABLE = ("keep_checkpoints", "skip_bad_batches", "device", "precision", "threads")
"""The fields of :class:`Setup` that may change when a run is resumed."""


@dataclass(frozen=True)
class Setup:
    """The setup of a run. The run folder stores it, and ``--resume`` reads it.

    Attributes:
        dataset: the name of a data set, or the path of a ``dataset.toml``.
        root: the folder of the data set; None: the usual folders are searched.
        features: ``"disk"`` reads features, ``"synthetic"`` generates them for real annotations.
        layout: the layout of generated data.
        shapes: the embedded benchmark, a key of :data:`wtal.data.open.BENCHMARKS`.
        world: the seed of generated data.
        seed: the seed of initial weights, order, crops and dropout.
        recipe: the name of the recipe.
        clip_model: the open_clip architecture.
        clip_weights: a file with CLIP's weights; None lets open_clip download OpenAI's weights.
        allow_missing: leave out videos without features.
        keep_checkpoints: how many checkpoints to keep.
        skip_bad_batches: how many batches to skip at most if their loss or gradient is not finite.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. A run folder stores the device that ``auto`` chose.
        precision: ``auto``, ``float32`` or ``bf16``. A run folder stores the precision that ``auto`` chose.
        threads: the number of CPU threads; None: torch chooses. A run folder stores the number that torch chose.
        fold: ``"2/5"``: the second of five parts of the training videos is held out, and the run is measured on it.
            None: the data set's own split.
        processes: how many processes train the run together, each with a share of every batch; torchrun sets it.

    Raises:
        WtalError: a number is out of range.
    """

    dataset: str = "synthetic"
    root: str | None = None
    features: Literal["disk", "synthetic"] = "disk"
    layout: Layout = "basnet"
    shapes: str = "small"
    world: int = 0
    seed: int = 0
    recipe: str = "synthetic"
    clip_model: str = "ViT-B-16-quickgelu"
    clip_weights: str | None = None
    allow_missing: bool = False
    keep_checkpoints: int = 3
    skip_bad_batches: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    fold: str | None = None
    processes: int = 1

    def __post_init__(self) -> None:
        if self.fold is not None:
            parse_fold(self.fold)
        for name, least in (
            ("world", 0),
            ("seed", 0),
            ("keep_checkpoints", 1),
            ("skip_bad_batches", 0),
            ("threads", 1),
            ("processes", 1),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value < 2**63:
                raise WtalError(f"--{name.replace('_', '-')} {value}: expected a whole number from {least} on")


def moved(setup: Setup, root: str | None) -> Setup:
    """The setup with another folder of the data; None changes nothing.

    For a user's own data, ``root`` is the new folder of the TOML file, or its new path.


    Raises:
        WtalError: the data are generated.
    """
    if root is None:
        return setup
    if setup.dataset == "synthetic":
        raise WtalError(f"--root {root}: the data of this run are generated, they have no folder to look in")
    if setup.dataset.endswith(".toml"):
        place = Path(root) if root.endswith(".toml") else Path(root) / Path(setup.dataset).name
        return replace(setup, dataset=str(place.resolve()))
    return replace(setup, root=root)
