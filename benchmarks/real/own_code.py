"""What the peers' own code reached on the features that the baselines were tuned for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OwnCode:
    """One measurement of published code with its published settings, one seed.

    Attributes:
        method: whose.
        model: the baseline here that is in its style, None where there is none.
        iterations: of its training, which were fewer than published where the CPU seconds ran out.
        mean: mAP in percent, mean over tIoU 0.1 to 0.7.
        per_tiou: where it was written down.
    """

    method: str
    model: str | None
    iterations: int
    mean: float
    per_tiou: tuple[float, ...] = ()


DATA = "thumos14-r2plus1d, 185 training and 97 test videos"
OWN_CODE = (
    OwnCode("CoLA", "cola", 200, 22.0),
    OwnCode("CoLA", "cola", 400, 25.0),
    OwnCode("CoLA", "cola", 568, 26.3, (50.7, 41.7, 33.5, 26.5, 17.1, 9.7, 5.0)),
    OwnCode("CoLA", "cola", 968, 29.7),
    OwnCode("CoLA", "cola", 1368, 29.6),
    OwnCode("W-TALC", None, 1500, 18.6),
)
"""CoLA with one stream of 512 features, about 1.9 CPU seconds an iteration; from 568 on it had a fresh Adam."""
