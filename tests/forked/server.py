"""Runs commands of wtal in processes of their own, each forked from this one after its imports (they take seconds).

One JSON object a line on stdin: ``command``, ``arguments``, ``stdout`` and ``stderr`` (a file each, or one file for
both), ``folder`` to work in, ``environment`` to add and, for a process that is to be changed first, ``prepare``:
``[file, function, arguments]``. Answers on stdout: the process id, then the exit code (minus the signal).
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from typing import Any

COMMANDS = ("ablate", "eval", "extract", "predict", "report", "train")


def warm_up() -> None:
    """Everything that commands import once their options are read, and what the first training step would import."""
    import torch
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401

    for name in COMMANDS:
        importlib.import_module(f"wtal.cli.{name}")
    import wtal.inference.saved_model
    import wtal.training.job  # noqa: F401

    torch.set_num_threads(1)
    for kind in (torch.optim.Adam, torch.optim.AdamW):
        parameter = torch.nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        kind([parameter]).step()


def child(request: dict[str, Any]) -> int:
    """What the forked process does."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for stream, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["prepare"]:
        file, function, arguments = request["prepare"]
        runpy.run_path(file)[function](*arguments)
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
