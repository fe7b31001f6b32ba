"""Training curves of a run, read from its TensorBoard files."""

from __future__ import annotations

from pathlib import Path

Curves = dict[str, dict[str, list[float]]]
"""For each stage (``warmup``, ``B1``, ``F1``, ..., in order of training) and loss term, the value after each epoch."""


def read_curves(folder: Path) -> Curves:
    """The loss curves that a run has written so far. If a resumed run repeated an epoch, the later value counts.

    Args:
        folder: the run's ``tensorboard`` folder; if it does not exist, there are no curves.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
    from tensorboard.util.tensor_util import make_ndarray

    curves: dict[str, dict[str, dict[int, float]]] = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                stage, _, term = value.tag.partition("/")
                if not term or not value.HasField("tensor"):
                    continue
                curves.setdefault(stage, {}).setdefault(term, {})[event.step] = float(make_ndarray(value.tensor).item())
    return {
        stage: {term: [values[step] for step in sorted(values)] for term, values in terms.items()}
        for stage, terms in curves.items()
    }
