"""Features as public extractors make them: one process, OpenCV's flow, I3D in float32 with its batch normalisation.

One video at 25 frames a second, snippets of 16 frames. Flow is what wtal keeps of it, not 8 bits, so that the features
can be compared.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from wtal.models.clip_image import load_image_encoder
from wtal.models.i3d import load_i3d
from wtal.models.weight_files import read_weights

SHORT_SIDE, CROP, WINDOW, RATE = 256, 224, 16, 25


def frames(path: str) -> list[np.ndarray]:
    """RGB, short side 256, 25 a second: of the frames nearest to a place the last one, of none the one before."""
    with av.open(path) as container:
        scaled: dict[int, np.ndarray] = {}
        for frame in container.decode(video=0):
            scale = SHORT_SIDE / min(frame.width, frame.height)
            size = {"width": round(frame.width * scale), "height": round(frame.height * scale)}
            image = frame.reformat(**size, format="rgb24", interpolation="BILINEAR").to_ndarray()
            scaled[round(RATE * frame.time)] = image
    places = sorted(scaled)
    repeats = [later - place for place, later in itertools.pairwise(places)] + [1]
    return [scaled[place] for place, count in zip(places, repeats, strict=True) for _ in range(count)]


def cropped(image: np.ndarray) -> np.ndarray:
    top, left = ((side - CROP) // 2 for side in image.shape[:2])
    return image[top : top + CROP, left : left + CROP]


def flows(images: list[np.ndarray]) -> list[np.ndarray]:
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    found = [solver.calc(first, second, None) for first, second in itertools.pairwise(grey)]
    found = [np.rint(cropped(flow).clip(-20, 20) * (32767 / 20)) / 32767 for flow in found]
    return [*found, found[-1]]


@torch.no_grad()
def extract(video: str, rgb: Path, flow: Path, clip: Path) -> dict[str, np.ndarray]:
    """The arrays rgb, flow and clip."""
    images = frames(video)
    streams = {
        "rgb": (load_i3d(read_weights(rgb), 3, str(rgb)), [cropped(image) / 127.5 - 1 for image in images]),
        "flow": (load_i3d(read_weights(flow), 2, str(flow)), flows(images)),
    }
    starts = range(0, len(images) - WINDOW + 1, WINDOW)
    features = {}
    for name, (model, values) in streams.items():
        windows = (np.stack(values[start : start + WINDOW]).astype(np.float32) for start in starts)
        rows = [model(torch.from_numpy(window).permute(3, 0, 1, 2)[None].contiguous()) for window in windows]
        features[name] = torch.cat(rows).numpy()
    encoder = load_image_encoder(weights=clip)
    centres = [torch.from_numpy(cropped(images[start + WINDOW // 2]).copy()) for start in starts]
    rows = [encoder((image.float() / 255).permute(2, 0, 1)[None]) for image in centres]
    return {**features, "clip": torch.cat(rows).numpy()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    for name, what in (("rgb", "I3D's RGB weights"), ("flow", "I3D's flow weights"), ("clip", "CLIP's weights")):
        parser.add_argument(name, type=Path, help=what)
    parser.add_argument("out", type=Path, help="an .npz, with the arrays rgb, flow and clip")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    np.savez(options.out, **extract(options.video, options.rgb, options.flow, options.clip))


if __name__ == "__main__":
    main()
