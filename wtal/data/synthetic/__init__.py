"""The embedded benchmark: generated videos that model how the two branches fail, written to disk like real data.

One file a subject: :mod:`parameters` what can be turned, :mod:`randomness` the streams of numbers, :mod:`world` the
prototypes of classes, :mod:`events` what happens in a video, :mod:`features` what I3D and CLIP make of it,
:mod:`dataset` the whole set, :mod:`full_size` features for real annotations, :mod:`layouts` and :mod:`folder` how
both get to disk.
"""

from wtal.data.synthetic.dataset import GENERATOR_VERSION, synthetic_dataset
from wtal.data.synthetic.folder import build_folder
from wtal.data.synthetic.parameters import DEFAULT, TRUE_SHAPES, Parameters

__all__ = ["DEFAULT", "GENERATOR_VERSION", "TRUE_SHAPES", "Parameters", "build_folder", "synthetic_dataset"]
