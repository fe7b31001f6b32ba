"""The embedded benchmark: generated videos that model the errors of the two branches, written to disk like real data.

One file per subject: ``parameters`` has the adjustable values, ``randomness`` the random streams, ``world`` the class
prototypes, ``events`` the events in a video, ``features`` the I3D-like and CLIP-like features of these events,
``dataset`` the whole set, ``full_size`` features for real annotations; ``write_layouts`` and ``folder`` write both to
disk. ``realism`` measures how similar generated and real features are.
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
