"""Text features without CLIP: constant features, and learnable prompts with a small frozen encoder.

A text module returns ``[C, D]`` float32 of unit norm when called, and has ``dim`` (D) and ``num_classes`` (C).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.models.blocks import TransformerBlock
from wtal.models.masks import at_least_float32

_WIDTH = 64
_NAME_TOKENS = 3
_RIDGE = 1e-3


class FixedText(nn.Module):
    """Constant text features ``[C, D]``, scaled to unit norm, for prediction without a text encoder.

    Features of a checkpoint already have unit norm and are loaded with ``load_state_dict``: scaling them again would
    change their last bits.
    """

    features: Tensor

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.num_classes, self.dim = features.shape
        self.register_buffer("features", F.normalize(features.detach().float(), dim=-1))

    def forward(self) -> Tensor:
        """The features ``[C, D]``."""
        return self.features


class PromptedTextFeatures(nn.Module):
    """Learnable prompts for a data set that has text features instead of class names for CLIP.

    The prompts surround random name tokens of each class in a small random Transformer, which is frozen like
    CLIP's text encoder. A linear readout of its last token is fitted by ridge regression, and the residual of the
    fit is added. So the given features are reproduced exactly while the prompts have their initial values. The
    readout covers only the differences between classes: with a single class the prompts have no effect.

    Args:
        features: ``[C, D]`` the data set's text features.
        before: prompt vectors before the name.
        after: prompt vectors after the name.
        init_std: standard deviation of the initial prompts.
        seed: the seed of encoder, names and initial prompts; the global generator does not change.
    """

    names: Tensor
    end: Tensor
    centre: Tensor
    readout: Tensor
    offset: Tensor

    def __init__(
        self, features: Tensor, before: int = 16, after: int = 16, init_std: float = 0.01, seed: int = 0
    ) -> None:
        super().__init__()
        features = F.normalize(features.detach().cpu().double(), dim=-1)
        self.num_classes, self.dim = features.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.register_buffer("names", torch.randn(self.num_classes, _NAME_TOKENS, _WIDTH))
            self.register_buffer("end", torch.randn(1, _WIDTH))
            self.encoder = nn.ModuleList(TransformerBlock(_WIDTH, 4, 2.0) for _ in range(2))
            self.before = nn.Parameter(init_std * torch.randn(before, _WIDTH))
            self.after = nn.Parameter(init_std * torch.randn(after, _WIDTH))
        self.encoder.requires_grad_(False)
        with torch.no_grad():
            hidden = self._hidden().double()  # [C, width]
            centre = hidden.mean(0)
            centred = hidden - centre
            gram = centred.T @ centred + _RIDGE * torch.eye(_WIDTH, dtype=torch.float64)
            readout = torch.linalg.solve(gram, centred.T @ (features - features.mean(0)))
        self.register_buffer("centre", centre.float())
        self.register_buffer("readout", readout.float())
        self.register_buffer("offset", (features - centred @ readout).float())  # [C, D]

    def _hidden(self) -> Tensor:
        """The encoder's output at each class's last token ``[C, width]``."""
        parts = (self.before, self.names, self.after, self.end)
        x = torch.cat([part.expand(self.num_classes, -1, -1) for part in parts], 1)
        for block in self.encoder:
            x = block(x)
        return x[:, -1]

    def forward(self) -> Tensor:
        """Text features of all classes ``[C, D]`` float32, unit norm."""
        with torch.autocast(self.names.device.type, enabled=False):
            features = (at_least_float32(self._hidden()) - self.centre) @ self.readout + self.offset
            return F.normalize(features, dim=-1)
