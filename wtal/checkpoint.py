"""Checkpoints: one safetensors file each, tensors and everything needed to use or resume them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.files import write_atomically

FORMAT = 1
"""Version of what :func:`save_checkpoint` writes."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        tensors: ``<module>.<parameter>`` -> tensor on the CPU.
        facts: JSON-able: configuration, classes, feature widths, position in the schedule.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of one module, its prefix removed."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")}


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint so that the file at ``path`` is at any moment either the old or the new one, whole."""
    copied = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = safetensors.torch.save(copied, metadata={"wtal": json.dumps({"format": FORMAT, **facts})})
    write_atomically(path, data)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        WtalError: missing or damaged file, or one that wtal did not write.
    """
    if not path.is_file():
        raise WtalError(f"{path}: no such checkpoint; expected a .safetensors file that wtal-train wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise WtalError(f"{path}: not a readable checkpoint: {error}") from error
    if "wtal" not in metadata:
        raise WtalError(f"{path}: a safetensors file, but not a checkpoint of wtal")
    facts = json.loads(metadata["wtal"])
    if facts.get("format") != FORMAT:
        raise WtalError(f"{path}: checkpoint format {facts.get('format')!r}, but this wtal reads format {FORMAT}")
    return Checkpoint(tensors, facts)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors, ``<parameter index>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what :func:`optimizer_tensors` took out."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What a module has learned or measured, without frozen encoders that come from a file of their own."""
    frozen = {id(p) for p in module.parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if id(tensor) not in frozen}
