"""The job behind ``wtal-train``: opens the data, builds the branches, trains them and prints the table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape

from wtal.about import versions
from wtal.data.ambiguous import FILE, is_ambiguous
from wtal.data.batches import whole_videos
from wtal.data.feature_index import survey
from wtal.data.video import VideoSet
from wtal.errors import WtalError, reason
from wtal.evaluation.inputs import has_ambiguous, unused_ambiguous
from wtal.evaluation.table import caption, has_ground_truth, table
from wtal.inference.branches import Branches, build_branches
from wtal.inference.frame_scores import check_lengths
from wtal.platform.as_json import dumps
from wtal.platform.device import Device, choose_device, describe, limit_onednn_cache
from wtal.platform.distributed import SINGLE_PROCESS, ProcessError, Processes, joined
from wtal.platform.files import WriteError, no_room
from wtal.platform.interrupt import Interruptible
from wtal.platform.progress import Reporter
from wtal.platform.stdout import StdoutError
from wtal.runs.checkpoint import own_tensors
from wtal.runs.read_only import ReadOnlyRun
from wtal.runs.resume import resumed_setup
from wtal.runs.run import CONFIG, Run, default_folder
from wtal.runs.setup import Setup
from wtal.runs.videos import check_place, open_videos
from wtal.settings.config import RunConfig
from wtal.settings.recipe import Sources
from wtal.training.clip_needs import check_clip
from wtal.training.schedule import Stage
from wtal.training.trainer import Trainer

PROGRAM = "wtal-train"
BIAS_VIDEOS = 1_000
"""The largest number of training videos on which VLP's logit bias is measured."""


def start(
    setup: Setup,
    config: RunConfig,
    source: Sources,
    *,
    out: Path | None = None,
    resume: Path | None = None,
    given: Collection[str] = (),
    quiet: bool = False,
    as_json: bool = False,
) -> int:
    """Train, print the table and return the exit code.

    Args:
        setup: the data set, the seeds and the device.
        config: the settings.
        source: the origin of each setting, which the run folder records.
        out: a new run folder; None: ``runs/<data set>-<date>-<time>``.
        resume: the folder of a run to continue. Its own setup and settings are used then.
        given: the options given on the command line, such as ``seed`` or ``cbp.dim``.
        quiet: print only the table.
        as_json: print only the run folder and its rows, as JSON.
    """
    with joined() as processes:
        before: Setup | None = None
        if resume is not None:
            before, before_config = processes.from_rank_zero(partial(_known, resume))
            setup = resumed_setup(before, setup, before_config=before_config, config=config, given=given)
            config = before_config
            processes.from_rank_zero(partial(check_place, setup))
        if setup.threads is not None:
            torch.set_num_threads(setup.threads)
        where = choose_device(setup.device, setup.precision, processes.gpu)
        facts = facts_of(where, processes)
        setup = replace(setup, **facts)
        description = describe(where) + (f", {processes.size} processes" if processes.size > 1 else "")
        other = [] if before is None else [name for name in facts if getattr(before, name) != facts[name]]
        if other:
            description += (
                f" instead of {', '.join(f'{k} {getattr(before, k)}' for k in other)}: from here on, other bits"
            )
        description = f"{f'{setup.recipe} recipe, seed {setup.seed}' if before is None else 'resumed'}, {description}"
        folder = processes.from_rank_zero(lambda: _create(out, setup, config, source) if resume is None else resume)
        run = ReadOnlyRun(folder, setup, config) if processes.rank else Run(folder, setup, config)
        return _train(run, where, processes, description, quiet, as_json, fresh=resume is None, given=given)


def _known(folder: Path) -> tuple[Setup, RunConfig]:
    run = Run.open(folder)
    return run.setup, run.config


def _create(out: Path | None, setup: Setup, config: RunConfig, source: Sources) -> Path:
    made_by = versions()
    folder = out or default_folder(setup.dataset)
    try:
        return Run.create(folder, setup, config, source, made_by).folder
    except WtalError:
        if out is None:  # an empty folder is of no use to anybody
            with suppress(OSError):
                folder.rmdir()
        raise


def _train(
    run: Run,
    device: Device,
    processes: Processes,
    description: str,
    quiet: bool,
    as_json: bool,
    fresh: bool,
    given: Collection[str],
) -> int:
    console = Console(quiet=processes.rank > 0)
    reporter = Reporter(console, quiet or as_json, run.log)
    again = f"go on with: {processes.launcher or PROGRAM} --resume {run.folder}"
    try:
        with Interruptible(processes):
            run.lock()
            trainer = begin(run, device, reporter, processes, fresh, given)
            run.remember()
            reporter.say(f"{description}; every setting is in {run.folder}/config.toml")
            rows = trainer.fit()
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"{str(interrupt) or 'interrupted'}; {again}") from None
    except (WriteError, OSError, StdoutError) as error:
        cause = f"{run.folder}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        when = "when there is room" if no_room(error) else "once that is mended"
        raise WtalError(f"{cause}; earlier checkpoints are intact; {when}, {again}") from None
    except ProcessError as error:
        raise ProcessError(f"{error}; {again}" if (run.folder / CONFIG).is_file() else str(error)) from None
    finally:
        run.unlock()
    if as_json:
        if processes.rank == 0:
            print(dumps({"run": str(run.folder), "rows": rows}, indent=1))
        return 0
    console.print(table(rows, escape(caption(trainer.data, rows))))
    console.print(f"run folder: {run.folder}", markup=False, highlight=False, soft_wrap=True)
    return 0


def facts_of(device: Device, processes: Processes) -> dict[str, Any]:
    """The fields of :class:`wtal.runs.setup.Setup` that describe the computer.

    They can change the last bits of the results, as the settings can.
    """
    return {
        "processes": processes.size,
        "device": str(device.name) if processes.gpu is None else device.name.type,
        "precision": "bf16" if device.bf16 else "float32",
        "threads": torch.get_num_threads(),
    }


def begin(
    run: Run, device: Device, reporter: Reporter, processes: Processes, fresh: bool, given: Collection[str] = ()
) -> Trainer:
    """:func:`prepare`. If it fails for a ``fresh`` run, whose folder is new, the folder is removed."""
    try:
        return prepare(run, device, reporter, processes=processes, given=given)
    except WtalError:
        if fresh and run.checkpoints.newest() is None:
            run.discard()
        raise


def prepare(
    run: Run,
    device: Device,
    reporter: Reporter,
    stages: Sequence[Stage] | None = None,
    processes: Processes = SINGLE_PROCESS,
    given: Collection[str] = (),
) -> Trainer:
    """Open the data of a run and build its branches, or restore them from its checkpoint.

    Args:
        run: the run.
        device: the device to train on.
        reporter: shows messages and progress.
        stages: the stages to train; None: the run's own schedule.
        processes: the processes that train the run.
        given: the options given on the command line. An option that needs CLIP features is an error without them.
    """
    limit_onednn_cache()
    setup = run.setup
    data = processes.once_per_machine(lambda: open_with_progress(run, reporter))
    train, test = data.subset("train"), data.subset("test")
    if not train:
        raise WtalError(f"data set {data.name}: no training videos")
    if run.config.evaluate.ambiguous == "drop" and has_ground_truth(data) and not has_ambiguous(test):
        raise WtalError(
            f"evaluate.ambiguous = drop: the test videos of {data.name} have no ambiguous intervals, expected {FILE} "
            "beside the ground truth, or a label Ambiguous in it"
        )
    reporter.say(
        f"{data.name} ({data.layout} layout): {len(data.classes)} classes, {len(train)} training and {len(test)} test "
        f"videos"
        + (f", {len(data.missing)} left out for missing features" if data.missing else "")
        + (f", {len(data.unlabelled)} training videos left out without a label" if data.unlabelled else "")
    )
    labels = {label for video in train for label in video.labels}
    untrained = [name for name in data.classes if name not in labels]
    unclear = unused_ambiguous(test) if run.config.evaluate.ambiguous == "keep" else []
    if trained := sorted(filter(is_ambiguous, labels)):
        unclear.append(f"the label {trained[0]!r} of training videos is trained as a class of its own")
    unseen = [f"no training video has {', '.join(untrained)}"] if untrained else []
    for note in (*data.notes, *data.test_notes, *unseen, *unclear):
        reporter.say(f"note: {note}")
    if message := check_clip(data, setup, run.config, given):
        reporter.say(f"note: {message}")
    if data.has_clip and data.text_features is None and setup.clip_weights is None:
        reporter.say(f"fetching the weights of CLIP {setup.clip_model}, where open_clip has not stored them yet")
    torch.manual_seed(setup.seed)
    branches = build_branches(data, run.config, setup.clip_model, _path(setup.clip_weights))
    branches.to(device.name)
    trainer = Trainer(branches, data, run, device, reporter, stages, processes)
    check_lengths(branches, tuple(branches), data.videos)  # before training, not in the middle of it
    if newest := processes.from_rank_zero(lambda: run.checkpoints.load(reporter.say)):
        try:
            trainer.resume(*newest)
        except WtalError:
            raise
        except Exception as error:  # a missing or malformed part can raise any error
            message = f"training cannot go on from it ({type(error).__name__}: {reason(error)})"
            raise WtalError(f"{newest[0].path}: {message}") from error
        processes.from_rank_zero(lambda: read_all(data, reporter))  # checks the files that have changed since
    else:
        processes.from_rank_zero(lambda: fit_inputs(branches, data, run.config, device, reporter))
        processes.broadcast(tensor for branch in branches.values() for tensor in own_tensors(branch).values())
    return trainer


def fit_inputs(branches: Branches, data: VideoSet, config: RunConfig, device: Device, reporter: Reporter) -> None:
    """Read all features once before training, and measure CBP's standardisation and VLP's logit bias.

    Both are measured on training videos. The bias uses at most :data:`BIAS_VIDEOS` of them, at equal distances in the
    list.
    """
    train = data.subset("train")
    mean, deviation = read_all(data, reporter)
    if config.batch.standardize:
        branches.classification.set_statistics(torch.from_numpy(mean), torch.from_numpy(deviation))
    if not branches.has_vlp:
        return
    chosen = train[:: -(-len(train) // BIAS_VIDEOS)]
    batches = (batch.to(device.name) for batch in whole_videos(data, chosen, 16, with_i3d=False))
    branches.vision_language.calibrate_bias((batch.clip, batch.lengths) for batch in batches if batch.clip is not None)


def read_all(data: VideoSet, reporter: Reporter) -> tuple[np.ndarray, np.ndarray]:
    """:func:`wtal.data.feature_index.survey`, with progress."""
    with reporter.counted("reading all features once", "videos") as progress:
        return survey(data, progress)


def open_with_progress(run: Run, reporter: Reporter) -> VideoSet:
    """Open the data set of a run, with progress in case it must be generated or converted first."""
    with reporter.counted(f"preparing {Path(run.setup.dataset).stem}", "videos") as progress:
        return open_videos(run.setup, run.config.schedule, progress)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
