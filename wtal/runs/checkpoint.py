"""Checkpoints: one safetensors file each, with all that prediction and the resumption of training need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wtal.errors import WtalError, reason
from wtal.platform.files import write_atomically

FORMAT = 2
"""The version of the format. Version 2 added a checksum and pseudo-labels."""


class FormatError(WtalError):
    """The checkpoint has a format of an older or a newer wtal."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        tensors: ``<module>.<parameter>`` -> tensor on the CPU.
        facts: values that JSON can store: configuration, classes, feature widths, position in the schedule.
        path: the file.
    """

    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    path: Path

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix`` and a dot, without that prefix."""
        return {k.removeprefix(f"{prefix}."): v for k, v in self.tensors.items() if k.startswith(f"{prefix}.")}


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: the file at ``path`` is always the complete old one or the complete new one."""
    copied = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    facts_text = json.dumps({"format": FORMAT, **facts})
    data = safetensors.torch.save(copied, metadata={"wtal": facts_text, "sha256": _checksum(facts_text, copied)})
    write_atomically(path, data)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint. Nothing in it is executed, and the memory needed is bounded by the size of the file.

    Raises:
        WtalError: the file is missing or damaged, or wtal did not write it.
    """
    if not path.is_file():
        raise WtalError(f"{path}: no such checkpoint; expected a .safetensors file that wtal-train wrote")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # The rounding of a matrix product depends on the memory alignment of its operands, and tensors in the file
            # are not aligned. Copies in torch's own memory are, so a loaded model gives the same bits as the saved one.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (file is not a mapping)
    # A damaged header can also raise a RuntimeError (an invalid view) or an AttributeError (an unknown dtype).
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise WtalError(f"{path}: not a readable checkpoint: {reason(error)}") from error
    facts_text = metadata.get("wtal")
    if facts_text is None:
        raise WtalError(f"{path}: a safetensors file, but not a checkpoint of wtal")
    try:
        facts = json.loads(facts_text)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise WtalError(f"{path}: damaged: what it says of itself is not a JSON object")
    if facts.get("format") != FORMAT:
        raise FormatError(f"{path}: checkpoint format {facts.get('format')!r}, but this wtal reads format {FORMAT}")
    if metadata.get("sha256") != _checksum(facts_text, tensors):
        raise WtalError(f"{path}: damaged: its content does not match its checksum")
    return Checkpoint(tensors, facts, path)


def _checksum(facts_text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the facts text and of each tensor's name, dtype, shape and bytes, in the order of the names."""
    digest = hashlib.sha256(facts_text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{list(tensor.shape)}\0".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The state of an optimiser as tensors by name, ``<parameter index>.<name>``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, values in state.items() for name, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore the state that :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module without its frozen parameters, which are loaded from their own file."""
    frozen = {id(p) for p in module.parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if id(tensor) not in frozen}
