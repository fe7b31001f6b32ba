"""The native module; its ops are torch.ops.wtal.*, registered when it is imported."""

import numpy as np
from numpy.typing import NDArray

def build_facts() -> dict[str, str | None]: ...
def match_detections(
    segments: NDArray[np.float64],
    scores: NDArray[np.float64],
    videos: NDArray[np.int64],
    classes: NDArray[np.int64],
    truth_segments: NDArray[np.float64],
    truth_videos: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    tiou: NDArray[np.float64],
) -> NDArray[np.int64]: ...
