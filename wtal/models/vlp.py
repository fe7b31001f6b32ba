"""The vision-language branch (VLP): CLIP frame features against the text features of prompted class names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.errors import WtalError
from wtal.models.blocks import TransformerBlock
from wtal.models.masks import at_least_float32
from wtal.models.packing import Packing, packings
from wtal.settings.config import VLPConfig


class VLP(nn.Module):
    """Frame-level action logits ``(cosine - bias) / temperature`` (supplement of Ju et al., CVPR 2023).

    Temporal Transformer blocks, initialised near the identity, process frozen CLIP frame features. A frozen text
    encoder computes the text features of the classes from learnable prompts. Images and texts are in different
    cones of CLIP's space, so all cosines are similar and ``sigmoid(cosine / temperature)`` saturates. A learnable
    bias removes that offset; this is our addition, not the paper's. The new model after :meth:`calibrate_bias` is
    the zero-shot model.

    Args:
        text: returns ``[C, feature_dim]`` of unit norm when called (:mod:`wtal.models.text_without_clip`,
            :mod:`wtal.models.clip_text`) and has ``dim`` and ``num_classes``.
        feature_dim: width of the CLIP frame features.
        config: sizes and initial values.

    Raises:
        WtalError: frame features and text features differ in width.
    """

    def __init__(self, text: nn.Module, feature_dim: int, config: VLPConfig) -> None:
        super().__init__()
        if text.dim != feature_dim:
            raise WtalError(
                f"the CLIP features of the frames have {feature_dim} dimensions, but the text features "
                f"{text.dim}; expected both from the same CLIP model (--clip-model)"
            )
        self.feature_dim = feature_dim
        self.config = config
        self.text = text
        self.blocks = nn.ModuleList(
            TransformerBlock(
                feature_dim, config.heads, config.mlp_ratio, config.dropout, config.window, config.init_std
            )
            for _ in range(config.blocks)
        )
        self.bias = nn.Parameter(torch.zeros(()))
        self._held: Tensor | None = None

    @contextmanager
    def hold_text(self) -> Iterator[None]:
        """A context in which the text features are computed only once, not for every batch; not for training."""
        with torch.no_grad():
            self._held = self.text()
        try:
            yield
        finally:
            self._held = None

    @property
    def stride(self) -> int:
        """A part of a video may begin at any snippet."""
        return 1

    @property
    def reach(self) -> int | None:
        """The largest distance in snippets at which a logit can depend on the input; None: no limit (no window)."""
        return None if self.config.window is None else self.config.window * len(self.blocks)

    def cosine(self, clip: Tensor, packing: Packing) -> Tensor:
        """Cosine between each frame and class, packed: ``[R, C]`` float32 for clip ``[B, T, feature_dim]``."""
        # Scale to unit variance per dimension, independent of the norm on disk. At unit norm and 512 dimensions, the
        # output of new blocks is as large as their input (measured: zero-shot 25 mAP instead of 41, generated data).
        x = F.normalize(at_least_float32(packing.pack(clip)), dim=-1) * math.sqrt(self.feature_dim)
        for block in self.blocks:
            x = block(x, packing)
        text: Tensor = self.text() if self._held is None else self._held
        with torch.autocast(x.device.type, enabled=False):  # in bfloat16 the cosines of all classes would be equal
            return F.normalize(at_least_float32(x), dim=-1) @ text.to(x.dtype).T

    def packing(self, clip: Tensor, lengths: Tensor) -> Packing:
        """The packing of a batch, without gaps; raises ValueError if a shape does not fit."""
        if clip.ndim != 3 or clip.shape[2] != self.feature_dim:
            raise ValueError(f"clip has shape {tuple(clip.shape)}; expected [B, T, {self.feature_dim}]")
        return packings(clip, lengths, 1, gap=False)[0]

    def forward(self, clip: Tensor, lengths: Tensor) -> Tensor:
        """Logits of every snippet and class.

        Args:
            clip: ``[B, T, feature_dim]`` floating point, any norm; values beyond each length are ignored, even NaN.
            lengths: ``[B]`` int64 on the same device.

        Returns:
            ``[B, T, C]`` float32, zeros beyond each length.
        """
        packing = self.packing(clip, lengths)
        logits = (self.cosine(clip, packing) - self.bias) / self.config.temperature
        return packing.unpack(logits, clip.shape[1])

    @torch.no_grad()
    def calibrate_bias(self, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
        """Sets the bias to the mean plus ``config.bias_deviations`` standard deviations of the training cosines.

        Args:
            batches: pairs of CLIP features ``[B, T, feature_dim]`` and lengths ``[B]``, read once.

        Returns:
            Mean and standard deviation over all valid snippets and classes.

        Raises:
            ValueError: there is no valid snippet.
        """
        training = self.training
        self.eval()
        count, mean, squares = 0, 0.0, 0.0  # squares: sum of squared differences from the mean
        try:
            with self.hold_text():
                for clip, lengths in batches:
                    values = self.cosine(clip, self.packing(clip, lengths)).double()  # [N, C]
                    if values.numel():
                        size, centre = values.numel(), float(values.mean())
                        total = count + size
                        squares += float((values - centre).square().sum())
                        squares += (centre - mean) ** 2 * count * size / total
                        mean += (centre - mean) * size / total
                        count = total
        finally:
            self.train(training)
        if count == 0:
            raise ValueError("batches hold no valid snippet; expected the training videos' CLIP features")
        deviation = math.sqrt(squares / count)
        self.bias.fill_(mean + self.config.bias_deviations * deviation)
        return mean, deviation
