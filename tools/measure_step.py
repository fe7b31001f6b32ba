"""Time and memory of one training step of each branch at the supplement's sizes, on random features.

python tools/measure_step.py --batch 64                  # what one step of the full-size job takes here
python tools/measure_step.py --batch 64 --micro 8        # the same in parts of 8 videos
python tools/measure_step.py --batch 2 --threads 1 --steps 2

Features, targets and text features are random: shapes, speed and memory are those of the real job, values are not.
CLIP's text encoder, which the VLP branch runs once a step over the class names, is left out.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
import time

import torch

from wtal.data.batches import Batch
from wtal.inference.branches import Branches
from wtal.models.cbp import CBP
from wtal.models.text_without_clip import FixedText
from wtal.models.vlp import VLP
from wtal.platform.device import choose_device
from wtal.platform.distributed import SINGLE_PROCESS
from wtal.settings.config import RunConfig
from wtal.settings.recipe import load_recipe
from wtal.training.gradients import add_gradients
from wtal.training.pseudo_labels import PseudoLabels
from wtal.training.rank_labels import PseudoLabelQuality, rank_labels

CLASSES = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--micro", type=int, default=0)
    parser.add_argument("--snippets", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = load_recipe("paper").config
    config = dataclasses.replace(config, batch=dataclasses.replace(config.batch, micro=options.micro))
    text = FixedText(torch.nn.functional.normalize(torch.randn(CLASSES, 512), dim=-1))
    print(
        f"{options.batch} videos of {options.snippets} snippets on {options.device}, {torch.get_num_threads()} threads"
    )
    modules = {"cbp": CBP(2048, CLASSES, config.cbp), "vlp": VLP(text, 512, config.vlp)}
    branches = Branches(modules, {}).to(options.device)
    for name in modules:
        steps(name, branches, options, config)


def steps(name: str, branches: Branches, options: argparse.Namespace, config: RunConfig) -> None:
    """A few optimiser steps of one branch; prints each."""
    shape, device = (options.batch, options.snippets), choose_device(options.device, "auto")
    optimizer = torch.optim.Adam([p for p in branches[name].parameters() if p.requires_grad], lr=1e-4)
    lengths = torch.full((options.batch,), options.snippets)
    labels = torch.zeros(options.batch, CLASSES)
    labels[:, 0] = 1
    target = rank_labels(torch.randn(*shape, CLASSES), lengths, labels, 0.9, 0.6)
    lesson = PseudoLabels(list(target), None, PseudoLabelQuality())
    index, start = torch.arange(options.batch), torch.zeros(options.batch, dtype=torch.int64)
    for number in range(options.steps):
        i3d = None if branches.reads_clip(name) else torch.randn(*shape, 2048)
        clip = torch.randn(*shape, 512) if branches.reads_clip(name) else None
        batch = Batch(i3d, clip, lengths, labels, index, start)
        wall, cpu = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        add_gradients(branches, name, batch, lesson, config, device, SINGLE_PROCESS)
        optimizer.step()
        if device.name.type == "cuda":
            torch.cuda.synchronize()
            memory = torch.cuda.max_memory_allocated() / 2**30
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{name.upper()} step {number + 1}: {time.perf_counter() - wall:.2f} s, "
            f"{time.process_time() - cpu:.2f} CPU s, peak {memory:.2f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
