"""Makes a process of ``wtal-train`` strike itself, so that each run is cut off at the same place."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


def arm(signal: int, point: str, count: int) -> None:
    """Make this process strike itself at a point."""
    from wtal.platform import interrupt
    from wtal.runs import checkpoint_folder
    from wtal.training import trainer

    seen = 0

    def here() -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal)

    def before(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
        real = getattr(owner, name)

        def struck(*arguments: Any, **named: Any) -> Any:
            if when(*arguments, **named):
                here()
            return real(*arguments, **named)

        setattr(owner, name, struck)

    def after(owner: Any, name: str, when: Callable[..., bool] = lambda *_, **__: True) -> None:
        real = getattr(owner, name)

        def struck(*arguments: Any, **named: Any) -> Any:
            result = real(*arguments, **named)
            if when(*arguments, **named):
                here()
            return result

        setattr(owner, name, struck)

    def is_checkpoint(source: Any, *_: Any, **__: Any) -> bool:
        return Path(source).name.startswith((".checkpoint-", "checkpoint-"))

    def is_checkpoint_descriptor(descriptor: int) -> bool:
        return is_checkpoint(os.readlink(f"/proc/self/fd/{descriptor}"))

    def is_half_written_checkpoint(descriptor: int) -> bool:
        if not is_checkpoint_descriptor(descriptor):
            return False
        if seen + 1 == count:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        return True

    points: dict[str, Callable[[], None]] = {
        "before a step": lambda: before(trainer.Trainer, "update"),
        "after the teacher's pseudo-labels": lambda: after(trainer, "make_pseudo_labels"),
        "before the student's first step": lambda: before(
            trainer.Trainer,
            "update",
            lambda self, _, own, *__: own.pseudo_labels is not None and not self.batch_index + self.epoch,
        ),
        "while a checkpoint is half written": lambda: before(os, "fsync", is_half_written_checkpoint),
        "while a checkpoint is written": lambda: before(os, "fsync", is_checkpoint_descriptor),
        "before a checkpoint is renamed": lambda: before(os, "replace", is_checkpoint),
        "after a checkpoint is renamed": lambda: after(os, "replace", is_checkpoint),
        "before an old checkpoint is removed": lambda: before(checkpoint_folder.Path, "unlink", is_checkpoint),
        "after an epoch asked for interrupts": lambda: after(interrupt.Interruptible, "anywhere"),
        "before a result is saved": lambda: after(trainer, "measure"),
    }
    points[point]()
