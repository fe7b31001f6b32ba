"""One mAP for each seed of a cross-validation: the detections of all held-out parts, evaluated together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wtal.ablation.trial import Trial, detections
from wtal.data.folds import parse_fold
from wtal.data.video import VideoSet
from wtal.evaluation.average_precision import evaluate
from wtal.settings.recipe import load_recipe


def pooled(root: Path, finished: Sequence[tuple[Trial, Mapping[str, Any]]], data: VideoSet) -> list[dict[str, Any]]:
    """Evaluate each recipe and seed once over all training videos that were held out.

    The mean over parts averages each class over the parts in which it occurs, from a few videos each. Here one ranking
    of a class covers all videos, so the scores of the networks of different parts must also agree.

    Args:
        root: folder of the runs.
        finished: the finished trials of the comparison, each with its record.
        data: the whole data set.

    Returns:
        ``recipe``, ``seed``, ``mAP`` and ``per_tiou`` (percent) for each recipe and seed whose parts are all finished;
        nothing if the trials are not parts of the training videos.

    Raises:
        WtalError: the predictions of a run are missing or damaged.
    """
    by_seed: dict[tuple[str, int], list[tuple[Trial, Mapping[str, Any]]]] = {}
    for trial, record in finished:
        if trial.fold is not None:
            by_seed.setdefault((trial.name, trial.seed), []).append((trial, record))
    held_out = tuple(replace(video, subset="test") for video in data.subset("train") if video.instances is not None)
    videos = replace(data, videos=held_out)
    found = []
    for (name, seed), parts in by_seed.items():
        first = parts[0][0]
        assert first.fold is not None
        if len(parts) < parse_fold(first.fold)[1]:
            continue
        together = {
            video: its
            for trial, record in parts
            for video, its in detections(trial.folder(root), record["result"]).items()
        }
        asked = load_recipe(first.recipe).config.evaluate
        result = evaluate(together, videos, asked.protocol, asked.tiou, "test", asked.ambiguous)
        per_tiou = {f"{tiou:g}": round(value, 4) for tiou, value in result.per_tiou.items()}
        found.append({"recipe": name, "seed": seed, "mAP": round(result.mean, 4), "per_tiou": per_tiou})
    return found
