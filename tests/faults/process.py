"""Runs commands of wtal in processes of their own, each forked from this one after its imports (they take seconds).

One JSON object a line on stdin: ``command``, ``arguments``, ``output`` (a file for both streams) and, for a process
that is to strike itself, ``strike``: ``[signal, point, count]``, sent the ``count``-th time that it comes to ``point``.
Answers on stdout: the process id, then the exit code (minus the signal).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def warm_up() -> None:
    """Everything that the first training step would import."""
    import torch
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    import wtal.training.job  # noqa: F401

    torch.set_num_threads(1)
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        kind([parameter]).step()


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
        "before a step": lambda: before(trainer.Trainer, "step"),
        "after the teacher's pseudo-labels": lambda: after(trainer, "make_pseudo_labels"),
        "before the student's first step": lambda: before(
            trainer.Trainer,
            "step",
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


def child(request: dict[str, Any]) -> int:
    """What the forked process does."""
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    if request.get("strike"):
        arm(*request["strike"])
    sys.argv = [f"wtal-{request['command']}", *request["arguments"]]
    try:
        code = importlib.import_module(f"wtal.cli.{request['command']}").main()
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0)


def main() -> None:
    """Serve until stdin ends."""
    warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        process = os.fork()
        if process == 0:
            code = 1
            try:
                code = child(request)
            finally:
                os._exit(code)
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
