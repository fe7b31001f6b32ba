"""In which order a data set puts the designs of :mod:`benchmarks.real.designs`.

    python -m benchmarks.real.order --data DIR/dataset.toml --name real
    python -m benchmarks.real.order --shapes version-2 --worlds 0 1 --name "version 2"

One seed, one thread, mAP on the test videos in the order of designs alone: nothing is chosen by it. OUT.json has all
columns so far; networks that a column has already are skipped. Then: Spearman's correlation of each column with the
one called "real".
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wtal.data.features import read_features
from wtal.data.open import BENCHMARKS, open_data
from wtal.data.video import VideoSet
from wtal.evaluation.average_precision import evaluate
from wtal.platform.files import write_atomically

from .data import Data
from .designs import DESIGNS, NETWORKS, detections
from .loop import train

OUT = Path(__file__).resolve().parents[1] / "results/design-order.json"


def measure(data: Data, network: str, seed: int) -> dict[str, float]:
    """mAP of every design of one network."""
    kind, training, test = NETWORKS[network], data.videos.subset("train"), data.videos.subset("test")
    model = train(kind, data.features_of(kind, training, training), data.labels(training), seed)
    rows = data.features_of(kind, training, test)
    found = {}
    for title, design in DESIGNS.items():
        if design.network == network:
            every = {
                video.id: detections(design, model, own, video.timebase, data.videos.classes)
                for video, own in zip(test, rows, strict=True)
            }
            found[title] = round(evaluate(every, data.videos).mean, 2)
    return found


def spearman(first: list[float], second: list[float]) -> float:
    """Rank correlation; equal values share the mean of their ranks."""

    def ranks(values: list[float]) -> np.ndarray:
        array = np.asarray(values)
        return np.array([(array < value).sum() + ((array == value).sum() - 1) / 2 for value in array])

    return float(np.corrcoef(ranks(first), ranks(second))[0, 1])


def agreement(columns: dict[str, dict[str, float]], real: str = "real") -> dict[str, float]:
    """Spearman's correlation with the real column, over the designs that both have."""
    found = {}
    for name, column in columns.items():
        common = [title for title in DESIGNS if title in column and title in columns.get(real, {})]
        if name != real and len(common) > 2:
            found[name] = round(spearman([column[t] for t in common], [columns[real][t] for t in common]), 3)
    return found


def table(columns: dict[str, dict[str, float]], real: str = "real") -> str:
    """Markdown: a row a design, in the real order."""
    titles = sorted(DESIGNS, key=lambda title: -columns.get(real, {}).get(title, 0.0))
    lines = ["| design | " + " | ".join(columns) + " |", "| --- |" + " ---: |" * len(columns)]
    for title in titles:
        cells = [f"{column[title]:.1f}" if title in column else "" for column in columns.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    found = agreement(columns, real)
    lines.append(
        "| **Spearman with real** | " + " | ".join(f"{found[n]:.2f}" if n in found else "" for n in columns) + " |"
    )
    return "\n".join(lines)


def _read(videos: VideoSet) -> Data:
    return Data(videos, {video.id: read_features(video) for video in videos})


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="dataset.toml of real features")
    parser.add_argument("--shapes", choices=[*BENCHMARKS], help="an embedded benchmark instead")
    parser.add_argument("--worlds", type=int, nargs="+", default=[0], help="its worlds; the column is their mean")
    parser.add_argument("--networks", choices=[*NETWORKS], nargs="+", default=[*NETWORKS])
    parser.add_argument("--name", required=True, help="of the column")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if (options.data is None) == (options.shapes is None):
        parser.error("expected one of --data and --shapes")
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    worlds = [0] if options.data else options.worlds
    for world in worlds:
        column = results.setdefault(options.name, {}).setdefault(str(world), {})
        wanted = [n for n in options.networks if any(d.network == n and t not in column for t, d in DESIGNS.items())]
        if not wanted:
            continue
        videos = (
            open_data(str(options.data)) if options.data else open_data("synthetic", shapes=options.shapes, world=world)
        )
        data = _read(videos)
        for network in wanted:
            began = time.process_time()
            found = measure(data, network, options.seed)
            column.update(found)
            told = ", ".join(f"{title} {value:.1f}" for title, value in found.items())
            print(f"{options.name} {world}: {told} ({time.process_time() - began:.0f} CPU s)", flush=True)
            write_atomically(options.out, json.dumps(results, indent=1).encode())
    print(table(means(results)))
    return 0


def means(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Each column's mean over its worlds, of the designs that all of them have."""
    found = {}
    for name, worlds in results.items():
        common = [title for title in DESIGNS if all(title in world for world in worlds.values())]
        found[name] = {title: float(np.mean([world[title] for world in worlds.values()])) for title in common}
    return found


if __name__ == "__main__":
    raise SystemExit(main())
