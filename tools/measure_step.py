"""Time and memory of one training step of each branch at the supplement's sizes, on random features.

python tools/measure_step.py --batch 64                  # what one step of the full-size job takes here
python tools/measure_step.py --batch 2 --threads 1 --steps 2

Features, targets and text features are random: shapes, speed and memory are those of the real job, values are not.
CLIP's text encoder, which the VLP branch runs once a step over the class names, is left out.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch
from torch import nn

from wtal.config import LossConfig
from wtal.distill import pseudo_labels, step_loss
from wtal.models.cbp import CBP
from wtal.models.prompts import FixedText
from wtal.models.vlp import VLP
from wtal.recipe import load_recipe

CLASSES = 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--snippets", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    config = load_recipe("paper").config
    text = FixedText(torch.nn.functional.normalize(torch.randn(CLASSES, 512), dim=-1))
    print(
        f"{options.batch} videos of {options.snippets} snippets on {options.device}, {torch.get_num_threads()} threads"
    )
    for name, branch, width in (
        ("CBP", CBP(2048, CLASSES, config.cbp), 2048),
        ("VLP", VLP(text, 512, config.vlp), 512),
    ):
        steps(name, branch.to(options.device), width, options, config.loss)


def steps(name: str, branch: nn.Module, width: int, options: argparse.Namespace, loss: LossConfig) -> None:
    """A few optimiser steps of one branch; prints each."""
    device, shape = options.device, (options.batch, options.snippets)
    optimizer = torch.optim.Adam([p for p in branch.parameters() if p.requires_grad], lr=1e-4)
    lengths = torch.full((options.batch,), options.snippets, device=device)
    labels = torch.zeros(options.batch, CLASSES, device=device)
    labels[:, 0] = 1
    target = pseudo_labels(torch.randn(*shape, CLASSES, device=device), lengths, labels, 0.9, 0.6)
    for number in range(options.steps):
        features = torch.randn(*shape, width, device=device)
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device.startswith("cuda")):
            logits = branch(features, lengths)
        value = step_loss(logits.float(), lengths, labels, loss, target)["total"].mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
            memory = torch.cuda.max_memory_allocated() / 2**30
        else:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(
            f"{name} step {number + 1}: {time.perf_counter() - wall:.2f} s, {time.process_time() - cpu:.2f} CPU s, "
            f"peak {memory:.2f} GiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
