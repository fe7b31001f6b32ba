"""Train the baselines on a data set of features and measure them.

    python -m benchmarks.real --data DIR/dataset.toml --models conv mlp cola foreground --seeds 0-2 [--folds 4]

Each model is trained on the training videos' labels by one loop, and measured on the test videos by
:func:`wtal.evaluate`; with ``--folds K`` inside the training videos alone, whose temporal annotation is then needed and
used for measuring only. The results go to OUT.json and OUT.md; called again, runs that are in OUT.json are skipped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from wtal.ablation.process_pool import finished, pool
from wtal.cli.parsing import parse, run, whole_numbers
from wtal.errors import WtalError
from wtal.platform.files import check_writable, write_atomically

from .job import Job, execute
from .markdown import page
from .results import add, read, start, wanting

PROGRAM = "benchmarks.real"


@dataclass(frozen=True)
class Options:
    """Baselines on real features: trained by one loop, measured by wtal's evaluator."""

    data: Path
    """dataset.toml of the features."""
    models: tuple[Literal["conv", "mlp", "cola", "foreground"], ...] = ("conv", "mlp", "cola", "foreground")
    """One convolution; two layers; contrastive, after CoLA; foreground attention, after BaSNet and CO2-Net."""
    seeds: tuple[str, ...] = ("0-2",)
    """Of weights, order, crops and dropout: 7, or 0-2."""
    folds: int = 0
    """Cross-validate inside the training videos in so many parts; 0 measures on the test videos."""
    train_segments: Path | None = None
    """Temporal annotation of the training videos, for --folds; by default what dataset.toml says, else
    train_segments.csv beside it."""
    networks: int = 1
    """How many networks make one model; each has a seed of its own, and the mean of their scores is localised."""
    jobs: int = 1
    """Runs at a time, one thread each."""
    out: Path = Path("runs/real-baselines.json")
    """Results; the table goes to the same name with .md."""


def main() -> int:
    """Entry point."""
    return run(command, PROGRAM)


def command(arguments: Sequence[str]) -> int:
    """Run what is missing, then write and print the table."""
    options = parse(Options, PROGRAM, arguments)
    jobs = _jobs(options)
    pages = options.out.with_suffix(".md")
    check_writable(options.out)
    check_writable(pages)
    results = read(options.out, options.data) if options.out.exists() else start(options.data)
    todo = wanting(results, jobs)
    if len(jobs) > len(todo):
        print(f"{options.out}: has {len(jobs) - len(todo)} of the {len(jobs)} runs already")
    began = time.monotonic()
    try:
        with pool(options.jobs) as executor:
            for done, (place, future) in enumerate(finished(executor, execute, [(job,) for job in todo]), 1):
                job, found = todo[place], future.result()
                add(results, job, found)
                write_atomically(options.out, results.dump())
                write_atomically(pages, page(results).encode())
                took = f"{done}/{len(todo)}, {time.monotonic() - began:.0f} s"
                print(f"[{took}] {job}: mAP {found['mean']:.1f}, {found['cpu_seconds']:.0f} CPU s", flush=True)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; call again with the same options to go on") from None
    write_atomically(pages, page(results).encode())
    print(page(results))
    return 0


def _jobs(options: Options) -> list[Job]:
    if options.jobs < 1:
        raise WtalError(f"--jobs {options.jobs}: expected at least 1")
    if options.folds < 0 or options.folds == 1:
        raise WtalError(f"--folds {options.folds}: expected at least 2, or 0 for the test videos")
    if options.out.suffix != ".json":
        raise WtalError(f"--out {options.out}: expected a name that ends in .json")
    if options.train_segments is not None and not options.folds:
        raise WtalError("--train-segments goes with --folds")
    segments = options.train_segments
    if segments is not None and not segments.is_file():
        raise WtalError(f"{segments}: no such file, expected video,start,end,label of the training videos")
    seeds = whole_numbers(options.seeds, "--seeds", "7 or 0-2")
    if options.networks < 1:
        raise WtalError(f"--networks {options.networks}: expected at least 1")
    models = dict.fromkeys(options.models)
    return [
        Job(options.data, segments, model, seed, options.folds, options.networks) for model in models for seed in seeds
    ]
