"""The registry of layouts: all of them by name, and those whose annotations are in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wtal.data.layouts import actionformer, basnet, wtalc
from wtal.data.layouts.protocol import Dataset, Layout

LAYOUTS: dict[str, Layout] = {layout.NAME: layout for layout in (wtalc, basnet, actionformer)}


@dataclass(frozen=True)
class AnnotatedLayout:
    """A layout and the path of its annotations."""

    layout: Layout
    truth: Path


def look(place: Path, dataset: Dataset) -> list[AnnotatedLayout]:
    """The layouts whose annotations are in a folder."""
    pairs = ((layout, layout.truth(place, dataset)) for layout in LAYOUTS.values())
    return [AnnotatedLayout(layout, truth) for layout, truth in pairs if truth is not None]
