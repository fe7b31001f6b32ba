"""Checks before training that the data have CLIP features if the settings need them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from wtal.data.video import VideoSet
from wtal.errors import WtalError
from wtal.runs.setup import Setup
from wtal.settings.config import RunConfig

OF_VLP = {
    "": ("clip_model", "clip_weights"),
    "schedule": ("rounds", "b_epochs", "online_ema"),
    "distill": ("b_foreground", "b_background", "ensemble"),
}
"""Options that have no effect if CBP is trained alone. All options of section ``vlp`` have none either."""


def check_clip(data: VideoSet, setup: Setup, config: RunConfig, given: Collection[str] = ()) -> str | None:
    """Check the settings of a run against its data, which may lack CLIP features.

    Args:
        data: the run's videos. With schedule ``cbp`` they have no CLIP features.
        setup: the run's setup; messages name its data set.
        config: the run's settings.
        given: the options given on the command line, ``<name>`` or ``<section>.<name>``.

    Returns:
        a note for the user if CBP is trained alone, else None.

    Raises:
        WtalError: a setting needs the VLP branch, but there is none.
    """
    if data.has_clip:
        return None
    schedule = config.schedule
    if schedule.kind == "cbp":
        why, way = "--schedule.kind cbp trains no VLP branch", "auto, alternating and online do"
    else:
        why, way = f"{_place(setup)} has no CLIP features", _missing(setup)
    names = sorted(name.replace("_", "-") for name in given if _of_vlp(name))
    if schedule.kind in ("alternating", "online"):
        names = [f"schedule.kind {schedule.kind}"]
    elif schedule.ensemble_epochs:
        names = [f"schedule.ensemble-epochs {schedule.ensemble_epochs}"]
    elif config.localize.branch != "cbp":
        names = [f"localize.branch {config.localize.branch}"]
    if names:
        raise WtalError(f"--{names[0]} needs the VLP branch, but {why}: {way}")
    taught = sorted(name.replace("_", "-") for name in given if name == "schedule.f_epochs" or "distill." in name)
    if taught and not schedule.self_training:
        raise WtalError(f"--{taught[0]} needs steps with a teacher, but {why}: --schedule.self-training N has some")
    notes = [] if schedule.kind == "cbp" else [f"{why}: CBP is trained alone"]
    if schedule.control and "schedule.control" in given and not schedule.self_training:
        notes.append("no step has a teacher, so there is no control; --schedule.self-training N has such steps")
    return "; ".join(notes) or None


def _of_vlp(name: str) -> bool:
    """Whether an option has no effect without VLP."""
    section, _, key = name.rpartition(".")
    return section == "vlp" or key in OF_VLP.get(section, ())


def _place(setup: Setup) -> str:
    return setup.dataset if setup.dataset.endswith(".toml") else f"data set {setup.dataset}"


def _missing(setup: Setup) -> str:
    """A text that says where CLIP features are expected."""
    if setup.dataset.endswith(".toml"):
        return f"no 'clip' in {Path(setup.dataset).name}, expected a folder of <video>.npy with CLIP features"
    return "expected clip/<video>.npy beside the I3D features"
