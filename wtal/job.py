"""From the options of ``wtal-train`` to a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from wtal.about import versions
from wtal.branches import Branches, build_branches
from wtal.config import RunConfig
from wtal.data.batches import statistics, whole_videos
from wtal.data.open import open_data
from wtal.data.video import VideoSet
from wtal.device import Device, choose_device, describe
from wtal.errors import WtalError
from wtal.files import WriteError
from wtal.measure import table
from wtal.progress import Reporter
from wtal.recipe import Sources
from wtal.run import Run, Setup, default_folder
from wtal.schedule import Stage
from wtal.train import Trainer

PROGRAM = "wtal-train"


def start(
    setup: Setup,
    config: RunConfig,
    source: Sources,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> int:
    """Train and print the table; returns the exit code.

    Args:
        setup: what to train on, and seeds.
        config: the settings.
        source: where each of them comes from, for the run's record.
        out: a new run folder, None for ``runs/<data set>-<date>-<time>``.
        resume: folder of a run to go on with; its own setup and settings hold then.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``float32`` or ``bf16``.
        threads: CPU threads, None for torch's choice.
        quiet: print the table only.
    """
    if threads is not None:
        if threads < 1:
            raise WtalError(f"--threads {threads}: expected at least 1")
        torch.set_num_threads(threads)
    if setup.keep_checkpoints < 1:
        raise WtalError(f"--keep-checkpoints {setup.keep_checkpoints}: expected at least 1")
    if setup.skip_bad_batches < 0:
        raise WtalError(f"--skip-bad-batches {setup.skip_bad_batches}: expected 0 or more")
    where = choose_device(device, precision)
    if resume is not None:
        run = Run.open(resume)
    else:
        run = Run.create(out or default_folder(setup.dataset), setup, config, source, versions())
    console = Console()
    reporter = Reporter(console, quiet, run.log)
    again = f"{PROGRAM} --resume {run.folder}"
    try:
        run.hold()
        trainer = prepare(run, where, reporter)
        told = "resumed" if resume is not None else f"{setup.recipe} recipe, seed {setup.seed}"
        reporter.say(f"{told}, {describe(where)}; every setting is in {run.folder}/config.toml")
        rows = trainer.fit()
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"{interrupt or 'interrupted'}; go on with: {again}") from None
    except (WriteError, OSError) as error:
        told = str(error) if isinstance(error, WriteError) else f"{run.folder}: {error.strerror or error}"
        raise WtalError(f"{told}; earlier checkpoints are intact; when there is room, go on with: {again}") from None
    console.print(table(rows, caption(trainer.data, rows)))
    console.print(f"run folder: {run.folder}", highlight=False, soft_wrap=True)
    return 0


def prepare(run: Run, device: Device, reporter: Reporter, stages: Sequence[Stage] | None = None) -> Trainer:
    """Data and branches of a run, fresh or as its checkpoint has them; ``stages`` in place of its own schedule."""
    setup = run.setup
    data = open_with_progress(setup, reporter)
    train, test = data.subset("train"), data.subset("test")
    if not train:
        raise WtalError(f"data set {data.name}: no training videos")
    reporter.say(
        f"{data.name} ({data.layout} layout): {len(data.classes)} classes, {len(train)} training and {len(test)} test "
        f"videos" + (f", {len(data.missing)} left out for missing features" if data.missing else "")
    )
    if without := [video.id for video in train if video.clip is None]:
        raise WtalError(
            f"{len(without)} training videos have no CLIP features (first: {without[0]}): "
            f"training needs clip/<video>.npy beside the I3D features"
        )
    torch.manual_seed(setup.seed)
    branches = build_branches(data, run.config, setup.clip_model, _path(setup.clip_weights))
    branches.to(device.name)
    trainer = Trainer(branches, data, run, device, reporter, stages)
    if found := run.checkpoints.load(reporter.say):
        trainer.resume(*found)
    else:
        fit_inputs(branches, data, run.config, device)
    return trainer


def fit_inputs(branches: Branches, data: VideoSet, config: RunConfig, device: Device) -> None:
    """What is measured on the training features before training: CBP's standardisation, VLP's logit bias."""
    train = data.subset("train")
    if config.batch.standardize:
        mean, deviation = statistics(train)
        branches.classification.set_statistics(torch.from_numpy(mean), torch.from_numpy(deviation))
    batches = (batch.to(device.name) for batch in whole_videos(data, train, 16, with_i3d=False))
    branches.vision_language.calibrate_bias((batch.clip, batch.lengths) for batch in batches if batch.clip is not None)


def open_with_progress(setup: Setup, reporter: Reporter) -> VideoSet:
    """The data set of a run; shows progress where it has to be generated or converted first."""
    with reporter.counted(f"preparing {Path(setup.dataset).stem}", "videos") as progress:
        return open_data(
            setup.dataset,
            _path(setup.root),
            features=setup.features,
            layout=setup.layout,
            shapes=setup.shapes,
            world=setup.world,
            allow_missing=setup.allow_missing,
            progress=progress,
        )


def caption(data: VideoSet, rows: list[dict[str, object]]) -> str:
    """On what the numbers of a table were measured."""
    last = rows[-1]
    if last["kind"] == "localization":
        return f"{data.name}: mAP (%) at tIoU, protocol '{last['protocol']}', {last['videos']} test videos"
    return f"{data.name}: video-level mAP (%), {last['videos']} held-out videos; there is no temporal ground truth"


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
