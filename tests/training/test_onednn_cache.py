"""The memory that oneDNN keeps when every batch has another shape."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

PROGRAM = """
from pathlib import Path
import torch
from wtal.platform.device import limit_onednn_cache
if {limited}:
    limit_onednn_cache()
torch.set_num_threads(1)
layer = torch.nn.Conv1d(64, 64, 3)
def peak(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = None
for length in range(900, 100, -1):  # the first has the largest tensors
    layer(torch.zeros(1, 64, length)).sum().backward()
    before = before or peak()
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")
def test_old_primitives_are_forgotten() -> None:
    environment = {key: value for key, value in os.environ.items() if key != "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}

    def growth(limited: bool) -> int:
        command = [sys.executable, "-P", "-c", PROGRAM.format(limited=limited)]
        return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)

    assert growth(True) < growth(False) / 2


def test_the_users_own_number_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from wtal.platform.device import limit_onednn_cache

    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "5")
    limit_onednn_cache()
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "5"
