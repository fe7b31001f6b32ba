"""Pieces into feature rows: I3D and CLIP, in batches of one shape across snippets and videos.

A batch is always full, the last one with zeros: kernels choose their order of summation by the batch's shape, and a
feature must not depend on what happened to be beside it. With a batch of 1, the default on the CPU, it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from wtal.features.flow import STEPS
from wtal.models.clip_image import load_image_encoder
from wtal.models.i3d import fold, load_i3d
from wtal.models.weight_files import read_weights
from wtal.platform.device import Device


@dataclass
class Network:
    """A frozen network and the way its input is made.

    Attributes:
        model: ``[B, ...]`` floating point -> ``[B, D]``.
        prepare: ``[B, ...]`` integers on the device -> the model's input.
        device: where it runs.
        batch: how many pieces a forward pass takes.
    """

    model: nn.Module
    prepare: Callable[[Tensor], Tensor]
    device: Device
    batch: int
    _waiting: list[tuple[np.ndarray, Callable[[np.ndarray], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model.to(self.device.name)

    def add(self, piece: np.ndarray, done: Callable[[np.ndarray], None]) -> None:
        """One more piece; ``done`` gets its row ``[D]`` float32, now or when the batch is full."""
        self._waiting.append((piece, done))
        if len(self._waiting) == self.batch:
            self.flush()

    def flush(self) -> None:
        """Run what is waiting."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        rows = self._run([piece for piece, _ in waiting])
        for row, (_, done) in zip(rows, waiting, strict=False):
            done(row)

    @torch.inference_mode()
    def _run(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        batch = np.zeros((self.batch, *pieces[0].shape), pieces[0].dtype)
        np.stack(pieces, out=batch[: len(pieces)])
        on_device = torch.from_numpy(batch).to(self.device.name)
        with self.device.autocast():
            rows: Tensor = self.model(self.prepare(on_device))
        return rows.float().cpu().numpy()


def rgb_network(weights: Path, device: Device, batch: int) -> Network:
    """I3D on windows of RGB, uint8 ``[window, H, W, 3]``, whose order of axes is also that of the folded network."""
    model = fold(load_i3d(read_weights(weights, "--i3d-rgb"), 3, f"--i3d-rgb {weights}"))
    return Network(model, lambda x: (x.float() / 127.5 - 1).permute(0, 4, 1, 2, 3), device, batch)


def flow_network(weights: Path, device: Device, batch: int) -> Network:
    """I3D on windows of flow, int16 ``[window, H, W, 2]``."""
    model = fold(load_i3d(read_weights(weights, "--i3d-flow"), 2, f"--i3d-flow {weights}"))
    return Network(model, lambda x: (x.float() / STEPS).permute(0, 4, 1, 2, 3), device, batch)


def clip_network(name: str, weights: Path | None, device: Device, batch: int) -> Network:
    """CLIP's image encoder on frames, uint8 ``[H, W, 3]``."""
    model = load_image_encoder(name, weights)
    return Network(model, lambda x: (x.float() / 255).permute(0, 3, 1, 2).contiguous(), device, batch)
