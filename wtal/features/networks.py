"""The frozen networks, I3D and CLIP: from pieces to feature rows, in batches over snippets and videos.

Every batch has the same size; the last one is filled up with zeros. The reason: kernels choose their order of summation
by the shape of the batch, and a feature must not depend on how many other pieces are in its batch. A batch of 1, the
default on the CPU, excludes this completely.
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
from wtal.models.i3d import load_i3d
from wtal.models.i3d_inference import for_inference
from wtal.models.weight_files import read_weights
from wtal.platform.device import Device


@dataclass
class Network:
    """A frozen network with its preprocessing.

    Attributes:
        model: maps floating point ``[B, ...]`` to ``[B, D]``.
        prepare: maps integers ``[B, ...]`` on the device to the model's input.
        device: the device of the model.
        batch: the number of pieces per forward pass.
    """

    model: nn.Module
    prepare: Callable[[Tensor], Tensor]
    device: Device
    batch: int
    _waiting: list[tuple[np.ndarray, Callable[[np.ndarray], None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.model.to(self.device.name)
        if self.device.bf16:
            # Autocast would convert these weights again in every forward pass.
            for module in self.model.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | nn.Conv3d | nn.MultiheadAttention):
                    module.to(torch.bfloat16)

    def add(self, piece: np.ndarray, done: Callable[[np.ndarray], None]) -> None:
        """Add a piece. ``done`` is called with its row, float32 ``[D]``, once the batch is full or flushed."""
        self._waiting.append((piece, done))
        if len(self._waiting) == self.batch:
            self.flush()

    def flush(self) -> None:
        """Run the network on the pieces of an incomplete batch."""
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
    """I3D on windows of RGB frames, uint8 ``[window, H, W, 3]``, with values scaled to -1..1."""
    model = for_inference(load_i3d(read_weights(weights, "--i3d-rgb"), 3, f"--i3d-rgb {weights}"))
    return Network(model, lambda x: (x.float() / 127.5 - 1).permute(0, 4, 1, 2, 3), device, batch)


def flow_network(weights: Path, device: Device, batch: int) -> Network:
    """I3D on windows of flow, int16 fixed point ``[window, H, W, 2]``, with values scaled to -1..1."""
    model = for_inference(load_i3d(read_weights(weights, "--i3d-flow"), 2, f"--i3d-flow {weights}"))
    return Network(model, lambda x: (x.float() / STEPS).permute(0, 4, 1, 2, 3), device, batch)


def clip_network(name: str, weights: Path | None, device: Device, batch: int) -> Network:
    """CLIP's image encoder on RGB frames, uint8 ``[H, W, 3]``."""
    model = load_image_encoder(name, weights)
    return Network(model, lambda x: (x.float() / 255).permute(0, 3, 1, 2).contiguous(), device, batch)
