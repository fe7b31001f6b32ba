"""Write CLIP weights drawn at random, to try a job without owning the trained ones.

    python tools/random_clip_weights.py clip-random.safetensors
    wtal-train --dataset thumos14 --root R --features synthetic --clip-weights clip-random.safetensors

What a model with such weights says means nothing; its size, speed and memory are those of the real one.
"""

from __future__ import annotations

import sys

import open_clip
import safetensors.torch
import torch


def main(path: str, architecture: str = "ViT-B-16-quickgelu") -> None:
    """Save a freshly initialised model's state dict; the same bytes at every call."""
    torch.manual_seed(0)
    model = open_clip.create_model(architecture, pretrained=None)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(tensors, path)
    print(f"{path}: random weights of {architecture}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python tools/random_clip_weights.py FILE.safetensors [ARCHITECTURE]")
    main(*sys.argv[1:])
