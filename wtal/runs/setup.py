"""The setup of a run, beside its settings: options of the command line, kept in the run folder. No torch in here."""

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
    """The setup of a run: the command line's part of the configuration, kept for ``--resume``.

    Attributes:
        dataset: name of a data set, or path of a ``dataset.toml``.
        root: where its files lie; None looks in the usual places.
        features: ``"disk"`` reads features, ``"synthetic"`` generates them for real annotations.
        layout: layout in which generated data are written.
        shapes: which embedded benchmark, a key of :data:`wtal.data.open.BENCHMARKS`.
        world: seed of generated data.
        seed: seed of initial weights, order, crops and dropout.
        recipe: name of the recipe that the settings started from.
        clip_model: open_clip architecture.
        clip_weights: file with CLIP's weights; None lets open_clip fetch OpenAI's.
        allow_missing: train without videos whose features are not there.
        keep_checkpoints: how many checkpoints to keep.
        skip_bad_batches: how many batches whose loss or gradient is not finite to leave out before giving up.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; a run folder stores the device that ``auto`` chose.
        precision: ``auto``, ``float32`` or ``bf16``; likewise.
        threads: CPU threads, None for torch's choice; likewise.
        fold: ``"2/5"`` trains without the second of five parts of the training videos and measures on it; None is the
            data set's own split.
        processes: how many processes train the run together, each with a share of every batch; set by torchrun.

    Raises:
        WtalError: a number is out of range.
    """

    dataset: str = "synthetic"
    root: str | None = None
    features: str = "disk"
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
    """The same with its data in the folder ``root`` (of own data also the path of the TOML file); None changes nothing.

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
