"""The runs so far, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wtal.ablation.worlds import machine
from wtal.about import versions
from wtal.data.dataset_toml import open_own
from wtal.errors import WtalError
from wtal.platform.fields import load_json, take

from .job import Job

FORMAT = 1


@dataclass
class Results:
    """Runs on one data set; :attr:`runs` are dicts of ``model``, ``seed``, ``part`` and what a job found."""

    data: str
    runs: list[dict[str, Any]]

    def dump(self) -> bytes:
        """The file's content."""
        return (json.dumps({"format": FORMAT, "data": self.data, "runs": self.runs}, indent=1) + "\n").encode()


def start(data: Path) -> Results:
    """No run yet on the data set of a ``dataset.toml``."""
    return Results(_name(data), [])


def read(path: Path, data: Path) -> Results:
    """What a file holds of the data set of a ``dataset.toml``.

    Raises:
        WtalError: the file is no such results, or of another data set.
    """
    content = load_json(path, "results of benchmarks.real")
    try:
        if take(content, "format", "results of benchmarks.real") != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT}")
        name, runs = take(content, "data", "the data set's name"), take(content, "runs", "a list of runs")
        for run in runs:
            for key in ("model", "seed", "part", "settings", "mean", "per_tiou", "snippets", "cpu_seconds", "made_on"):
                take(run, key, "a run")
    except (ValueError, TypeError, AttributeError) as error:
        raise WtalError(f"{path}: not readable as results of benchmarks.real ({error})") from None
    if name != (expected := _name(data)):
        raise WtalError(f"{path}: results on {name}, expected {expected}; choose another --out")
    return Results(name, runs)


def wanting(results: Results, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that are not in the results with today's settings."""
    return [job for job in jobs if not any(_same(run, job) and run["settings"] == job.settings for run in results.runs)]


def add(results: Results, job: Job, found: dict[str, Any]) -> None:
    """Put a run into its place; one of other settings goes."""
    results.runs = [run for run in results.runs if not _same(run, job)]
    made = {**versions(), "machine": machine()}
    named = {"model": job.name, "seed": job.seed, "part": job.part}
    results.runs.append({**named, **found, "settings": job.settings, "made_on": made})
    results.runs.sort(key=lambda run: (run["part"] != "test", run["part"], run["model"], run["seed"]))


def _same(run: dict[str, Any], job: Job) -> bool:
    return (run["model"], run["seed"], run["part"]) == (job.name, job.seed, job.part)


def _name(data: Path) -> str:
    videos = open_own(data)
    return f"{videos.name}, {len(videos.subset('train'))} training and {len(videos.subset('test'))} test videos"
