"""The known name that was perhaps meant."""

from __future__ import annotations

import unicodedata

import pytest

from wtal.data.predictions import Detection
from wtal.data.video import Instance
from wtal.evaluation.average_precision import evaluate
from wtal.platform.fields import meant

KNOWN = ("Jump", "CliffDiving", "Café", "ﬁnish")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("JUMP", "'JUMP' (did you mean 'Jump'?)"),
        ("cliffdiving", "'cliffdiving' (did you mean 'CliffDiving'?)"),
        (" Jump", "' Jump' (did you mean 'Jump'?)"),
        ("Jumpp", "'Jumpp' (did you mean 'Jump'?)"),
        ("FINISH", "'FINISH' (did you mean 'ﬁnish'?)"),
        ("CAFÉ", "'CAFÉ' (did you mean 'Café'?)"),
        ("Swim", "'Swim'"),
    ],
)
def test_case_and_typing(name: str, told: str) -> None:
    assert meant(name, KNOWN) == told


def test_another_normal_form_is_told_so_that_the_difference_is_seen() -> None:
    assert meant(unicodedata.normalize("NFD", "Café"), KNOWN) == r"'Cafe\u0301' (did you mean 'Caf\xe9'?)"


def test_an_evaluation_proposes_the_class() -> None:
    truth = {"a": [Instance(0, 1, "Jump"), Instance(2, 3, "Swim")]}
    found = {"a": [Detection(0, 1, "jump", 0.5), Detection(2, 3, "Swim", 0.5)]}
    notes = " ".join(evaluate(found, truth).notes)
    assert "1 detections of 1 classes without ground truth" in notes
    assert "'jump' (did you mean 'Jump'?)" in notes
