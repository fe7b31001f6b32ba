"""The embedded benchmark: generated videos that model how the two branches fail, written to disk like real data.

One file a subject: ``parameters`` what can be turned, ``randomness`` the streams of numbers, ``world`` the prototypes
of classes, ``events`` what happens in a video, ``features`` what I3D and CLIP make of it, ``dataset`` the whole set,
``full_size`` features for real annotations, ``layouts`` and ``folder`` how both get to disk.
"""

from wtal.data.synthetic.dataset import GENERATOR_VERSION, open_synthetic, synthetic_dataset
from wtal.data.synthetic.full_size import FULL_SIZE, annotations_digest, synthetic_features
from wtal.data.synthetic.parameters import DEFAULT, TRUE_SHAPES, VERSION_2, Parameters

__all__ = [
    "DEFAULT",
    "FULL_SIZE",
    "GENERATOR_VERSION",
    "TRUE_SHAPES",
    "VERSION_2",
    "Parameters",
    "annotations_digest",
    "open_synthetic",
    "synthetic_dataset",
    "synthetic_features",
]
