from __future__ import annotations

import dataclasses
import math
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from wtal.errors import WtalError
from wtal.settings.config import RunConfig
from wtal.settings.limits import LIMITS
from wtal.settings.recipe import from_table, load_recipe, shipped


def numbers() -> list[tuple[str, str, Any]]:
    """Section, key and type of every setting that holds a number."""
    found = []
    for section in dataclasses.fields(RunConfig):
        for key, kind in get_type_hints(type(getattr(RunConfig(), section.name))).items():
            inner = [one for one in (get_args(kind) if get_origin(kind) else (kind,)) if one in (int, float)]
            if inner:
                found.append((section.name, key, inner[0]))
    return found


def changed(section: str, key: str, value: Any) -> RunConfig:
    config = RunConfig()
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{key: value})})


def test_every_number_has_a_limit_and_nothing_else_has() -> None:
    assert {(section, key) for section, key, _ in numbers()} == {
        (section, key) for section, limits in LIMITS.items() for key in limits
    }


@pytest.mark.parametrize(("section", "key", "kind"), numbers())
def test_no_number_may_be_nan_or_infinite_or_far_out(section: str, key: str, kind: type) -> None:
    free = {("cbp", "output_bias"), ("vlp", "bias_deviations"), ("localize", "theta_loc")}
    several = isinstance(getattr(getattr(RunConfig(), section), key), tuple)
    bad = [-1] if kind is int else [math.nan, math.inf, -math.inf]
    if (section, key) not in free and kind is float:
        bad.append(-0.001)
    for value in bad:
        with pytest.raises(WtalError, match=rf"{section}\.{key} is .*{value}, expected"):
            changed(section, key, (0.5, value) if several else value)
    if several:
        with pytest.raises(WtalError, match=rf"{section}\.{key} is empty"):
            changed(section, key, ())


@pytest.mark.parametrize(
    ("section", "key", "bad"),
    [
        ("batch", "size", 0),
        ("batch", "snippets", 0),
        ("optimizer", "lr", 0.0),
        ("cbp", "dropout", 1.0),
        ("vlp", "temperature", 0.0),
        ("loss", "topk_divisor", 0),
        ("localize", "sigma", 0.0),
        ("localize", "max_detections", 0),
        ("evaluate", "tiou", (0.0,)),
        ("distill", "b_foreground", 0.3),  # below b_background
        ("distill", "f_background", 0.9),  # above f_foreground
    ],
)
def test_what_would_fail_late_or_train_nothing_is_refused(section: str, key: str, bad: Any) -> None:
    with pytest.raises(WtalError, match=rf"{section}\."):
        changed(section, key, bad)


def test_a_table_names_its_file() -> None:
    with pytest.raises(WtalError, match=r"^my\.toml: batch\.size is 0, expected a number from 1 on$"):
        from_table({"batch": {"size": 0}}, RunConfig(), "my.toml")


def test_shipped_recipes_keep_within_them() -> None:
    for name in shipped():
        load_recipe(name)
