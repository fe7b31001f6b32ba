"""The device and the precision of the computation."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from wtal.errors import WtalError

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
"""CPU features that multiply bf16 with float32 sums. A CPU with neither only emulates this."""


@dataclass(frozen=True)
class Device:
    """The device and the precision of the computation."""

    name: torch.device
    bf16: bool = False

    def autocast(self) -> torch.autocast:
        """The context for a forward pass."""
        return torch.autocast(self.name.type, torch.bfloat16, enabled=self.bf16)


def choose_device(name: str, precision: str, local_rank: int | None = None, cpu_bf16: bool = False) -> Device:
    """The device for ``--device`` and ``--precision``.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: ``auto``, ``float32`` or ``bf16``: the precision of the forward pass.
        local_rank: the number of this process on its machine, which is the index of its GPU; None: there is only one
            process.
        cpu_bf16: bf16 is also allowed on a CPU that can multiply it.

    Raises:
        WtalError: the device does not exist here, or it cannot compute in bf16.
    """
    wanted = name if name != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise WtalError(f"--device {name}: expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise WtalError(f"--device {name}: wtal has kernels for cpu and cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise WtalError(f"--device {name}: torch {torch.__version__} sees no CUDA device here")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise WtalError(f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    if device.type == "cuda" and local_rank is not None:
        if device.index is not None:
            raise WtalError(f"--device {name}: several processes take a GPU each; expected auto, cuda or cpu")
        if local_rank >= torch.cuda.device_count():
            raise WtalError(f"--nproc-per-node: there are {torch.cuda.device_count()} CUDA devices, one a process")
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    if precision == "bf16" and device.type == "cpu":
        if not cpu_bf16:
            raise WtalError("--precision bf16 needs a CUDA device; on the CPU leave it at float32")
        if not _BF16_FLAGS & _cpu_flags():
            raise WtalError("--precision bf16: this CPU has neither AVX512_BF16 nor AMX, expected float32")
        return Device(device, bf16=True)
    return Device(device, bf16=device.type == "cuda" and precision != "float32")


def limit_onednn_cache() -> None:
    """Let oneDNN keep 16 compiled primitives instead of 1,024, unless the user has set another number.

    Every batch of training has another shape, so an old primitive is seldom used again, and with several networks the
    cache grew to more than a gigabyte. No result depends on it. It has no effect once oneDNN has been used.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")


def _cpu_flags(source: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The feature flags of the CPU, from the operating system; empty if they are unknown."""
    try:
        lines = source.read_text().splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def describe(device: Device) -> str:
    """The device in words."""
    if device.name.type == "cuda":
        return f"{torch.cuda.get_device_name(device.name)}, {'bf16 autocast' if device.bf16 else 'float32'}"
    threads = torch.get_num_threads()
    precision = "bf16 autocast" if device.bf16 else "float32"
    return f"CPU with {threads} thread{'' if threads == 1 else 's'}, {precision}"
