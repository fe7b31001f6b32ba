"""The job behind ``wtal-ablate --dataset``: train several recipes on one data set, and write the comparison."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from wtal.ablation.comparison_page import comparison_figure, comparison_page
from wtal.ablation.job import check_report, write_files
from wtal.ablation.pooled import pooled
from wtal.ablation.process_pool import finished, pool
from wtal.ablation.trial import Trial, recorded, run_trial
from wtal.ablation.worlds import AND
from wtal.data.folds import fold_of
from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.evaluation.table import has_ground_truth
from wtal.runs.run import Run
from wtal.runs.videos import open_videos
from wtal.settings.config import RunConfig
from wtal.settings.recipe import load_recipe
from wtal.training.clip_needs import check_clip

FORMAT = "comparison 1"


def trials_of(
    dataset: str, root: str | None, allow_missing: bool, recipes: Sequence[str], seeds: Sequence[int], folds: int
) -> list[Trial]:
    """All trials of a comparison.

    The trials of one seed and part come one after another, so that an interrupted comparison has complete pairs.

    Raises:
        WtalError: two recipes have the same name.
    """
    parts = [f"{number}/{folds}" for number in range(1, folds + 1)] if folds else [None]
    trials = [
        Trial(recipe, seed, dataset, root, allow_missing, part)
        for seed, part, recipe in itertools.product(seeds, parts, recipes)
    ]
    names = [trial.name for trial in trials[: len(recipes)]]
    if again := next((name for place, name in enumerate(names) if name in names[:place]), None):
        raise WtalError(f"--recipes: two are called {again}, expected different file names")
    return trials


def compare(trials: Sequence[Trial], *, runs: Path, out: Path, processes: int) -> int:
    """Train the trials that are not finished, then write the results; returns the exit code.

    If a trial fails, the others continue, and the results of the finished trials are written.

    Args:
        trials: the trials from :func:`trials_of`.
        runs: folder of the runs.
        out: path of the results without the extension.
        processes: the number of trials at the same time; 0 trains nothing.

    Raises:
        WtalError: a check before training failed, a trial failed, or no trial is finished.
    """
    check_report(out)
    data = _checked(trials)
    failed: list[str] = []
    if processes:
        try:
            failed = _train(trials, runs, processes)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; call again with the same options to go on") from None
    results = collect(runs, trials, data)
    if results["runs"]:
        image = f"{out.name}.png"
        write_files(out, results, comparison_page(results, image), comparison_figure(results))
        print(f"{out}.json, .md, .png: {len(results['runs'])} of {len(trials)} runs")
    elif not failed:
        raise WtalError(f"{runs}: no run is finished yet")
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise WtalError(f"{len(failed)} of {len(trials)} runs failed: {failed[0]}{more}")
    return 0


def _checked(trials: Sequence[Trial]) -> VideoSet:
    """Open the data set and check all trials, before hours of training. Returns the whole data set, not split by fold.

    Raises:
        WtalError: a trial could not be trained or measured.
    """
    first: RunConfig | None = None
    whole: VideoSet | None = None
    for trial in {trial.name: trial for trial in trials}.values():
        config = load_recipe(trial.recipe).config
        first = first or config
        if config.evaluate != first.evaluate:
            raise WtalError(f"--recipes: {trial.name} measures otherwise than {trials[0].name} ([evaluate] differs)")
        data = open_videos(replace(trial.setup, fold=None), config.schedule)
        check_clip(data, trial.setup, config)
        whole = whole or data
        if apart := {video.id for video in data.videos} ^ {video.id for video in whole.videos}:
            raise WtalError(
                f"--recipes: {trial.name} has other videos than {trials[0].name} ({len(apart)}, e.g. {min(apart)}), "
                "expected the same ones; a recipe that uses CLIP leaves out the videos without CLIP features"
            )
    assert whole is not None
    for trial in {trial.fold: trial for trial in trials}.values():
        part = fold_of(whole, trial.fold) if trial.fold else whole
        if not has_ground_truth(part):
            raise WtalError(f"{whole.name}: test videos without temporal annotation, expected some to compare by")
        if not part.subset("train"):
            raise WtalError(f"{part.name}: no training videos")
    return whole


def _train(trials: Sequence[Trial], runs: Path, processes: int) -> list[str]:
    """Train the trials that are not finished; returns an error message for each failed trial."""
    waiting = [trial for trial in trials if recorded(runs, trial) is None]
    if there := len(trials) - len(waiting):
        print(f"{there} of {len(trials)} runs are finished already", flush=True)
    began, failed = time.monotonic(), list[str]()
    with pool(processes) as executor:
        jobs = finished(executor, run_trial, [(runs, trial) for trial in waiting])
        for done, (place, future) in enumerate(jobs, 1):
            trial = waiting[place]
            try:
                record = future.result()
            except WtalError as error:
                failed.append(f"{trial.label}: {error}")
                print(f"failed: {failed[-1]}", flush=True)
                continue
            passed = time.monotonic() - began
            left = passed / done * (len(waiting) - done)
            row = record["rows"][record["result"]]
            print(
                f"[{there + done}/{len(trials)}, {passed:.0f} s, about {left:.0f} s left] {trial.label}: "
                f"{record['result']} {row['mAP']:.1f} mAP, {record['cpu_seconds']:.0f} CPU s",
                flush=True,
            )
    return failed


def collect(root: Path, trials: Sequence[Trial], data: VideoSet) -> dict[str, Any]:
    """The results of the finished trials, with their provenance.

    Args:
        root: folder of the runs.
        trials: all trials of the comparison.
        data: the whole data set.

    Returns:
        ``format``; ``about``: data set, parts, seeds, recipes with all settings, versions, machines; ``runs``: the list
        of the records from :func:`wtal.ablation.trial.run_trial`; ``pooled``: the list from
        :func:`wtal.ablation.pooled.pooled`.
    """
    done = [(trial, record) for trial in trials if (record := recorded(root, trial)) is not None]
    made = [Run.open(trial.folder(root)).versions() for trial, _ in done]
    every = {
        name: sorted({one for versions in made for one in str(versions.get(name)).split(AND)})
        for name in (made[0] if made else ())
        if name != "generator" or trials[0].dataset == "synthetic"
    }
    configs = {trial.name: load_recipe(trial.recipe).config for trial in trials}
    evaluate = next(iter(configs.values())).evaluate
    folds = trials[0].fold
    return {
        "format": FORMAT,
        "about": {
            "data": data.name,
            "classes": len(data.classes),
            "videos": [len(data.subset("train")), len(data.subset("test"))],
            "folds": int(folds.partition("/")[2]) if folds else None,
            "seeds": sorted({trial.seed for trial in trials}),
            "recipes": {name: asdict(config) for name, config in configs.items()},
            "asked": len(trials),
            "threads": 1,
            "protocol": evaluate.protocol,
            "ambiguous": evaluate.ambiguous,
            "tiou": list(evaluate.tiou),
            "commits": every.pop("commit", []),
            "machines": every.pop("machine", []),
            "versions": every,
        },
        "runs": [record for _, record in done],
        "pooled": pooled(root, done, data),
    }
