"""``wtal-train`` as torchrun starts it for test_distributed.py, with something done on the way.

``DRILL`` is a JSON object: ``folder`` for notes; ``step`` (from 1), and what ``rank`` does before it: ``interrupt`` the
launcher, or ``damage`` a feature file. Every process notes what it opens for writing, and its weights at the end.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

import wtal.training.trainer

RANK = int(os.environ["RANK"])
DRILL = json.loads(os.environ["DRILL"])
NOTES = Path(DRILL["folder"]) / f"rank-{RANK}.json"
notes: dict[str, Any] = {"written": [], "random": None, "weights": None, "shares": []}


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
        notes["written"].append(os.fsdecode(arguments[0]))


def digest(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[name].numpy().tobytes() for name in sorted(tensors))).hexdigest()


real_step, real_fit, steps = wtal.training.trainer.Trainer.step, wtal.training.trainer.Trainer.fit, 0


def step(
    trainer: wtal.training.trainer.Trainer, stage: Any, students: Any, batches: Any
) -> dict[str, dict[str, float]]:
    global steps
    steps += 1
    if steps == 1:
        notes["random"] = digest({"state": torch.get_rng_state()})
    batches = list(batches)
    notes["shares"].append(len(batches[0].lengths))
    if steps == DRILL.get("step") and DRILL["rank"] == RANK:
        if DRILL["does"] == "interrupt":
            os.kill(os.getppid(), signal.SIGINT)
        else:  # in place of the file, not in it: it is mapped
            video = trainer.videos[0].i3d[0]
            video.with_suffix(".new").write_bytes(b"damaged")
            video.with_suffix(".new").replace(video)
    return real_step(trainer, stage, students, batches)


def fit(trainer: wtal.training.trainer.Trainer) -> list[dict[str, Any]]:
    rows = real_fit(trainer)
    notes["weights"] = digest({name: value.detach() for name, value in trainer.branches.state_dict().items()})
    return rows


if __name__ == "__main__":
    sys.addaudithook(watch)
    wtal.training.trainer.Trainer.step, wtal.training.trainer.Trainer.fit = step, fit  # type: ignore[method-assign]
    from wtal.cli.train import main

    try:
        code = main()
    finally:
        told = json.dumps(notes)
        NOTES.write_text(told)
    sys.exit(code)
