"""Recipes: TOML files that fill :class:`wtal.settings.config.RunConfig` and state the source of each value."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from wtal.errors import WtalError
from wtal.platform.as_toml import toml_value
from wtal.platform.fields import parse_toml
from wtal.platform.text import read_text
from wtal.settings.config import RunConfig

Sources = dict[str, dict[str, str]]
"""Section -> key -> ``"paper"`` or ``"ours: <reason>"``."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A named set of settings, with the source of each value."""

    name: str
    config: RunConfig
    source: Sources


def shipped() -> tuple[str, ...]:
    """The names of the recipes in the package."""
    files = resources.files("wtal.settings").joinpath("recipes").iterdir()
    names = (file.name for file in files if not file.name.startswith("."))
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def default_recipe(dataset: str) -> str:
    """The name of the default recipe of a data set."""
    if dataset.endswith(".toml"):
        return "own"
    known = [name for name in shipped() if name not in ("own", "paper", "version-2")]
    if dataset not in known:
        raise WtalError(f"--dataset {dataset}: expected one of {', '.join(known)}, or the path of a dataset.toml")
    return dataset


def load_recipe(name_or_path: str | Path, _children: tuple[str, ...] = ()) -> Recipe:
    """Read a recipe of the package by name, or a user's own recipe by path.

    A recipe with ``extends = "<other>"`` starts from the values of the other one, which is named, or given by a path
    from the folder of the file. The value ``"none"`` unsets a setting that may be unset.

    Raises:
        WtalError: the recipe does not exist or is not TOML, or has an unknown section or key or a value of the wrong
            type.
    """
    text, origin, name = _read(name_or_path)
    table = parse_toml(text, origin)
    base = table.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise WtalError(f"{origin}: extends = {base!r}: expected another recipe's name or path")
    if base is not None and base.endswith(".toml"):
        base = str((Path(name_or_path).parent / base).resolve())
        if not Path(base).is_file():
            raise WtalError(f"{origin}: extends {base}: no such file, expected another recipe's name or path")
    itself = str(name_or_path)
    children = (*_children, itself if itself in shipped() else str(Path(itself).resolve()))
    if base in children:
        raise WtalError(f"{origin}: extends {base}: expected a recipe that does not extend this one")
    parent = load_recipe(base, children) if base is not None else Recipe(name, RunConfig(), {})
    source = {section: dict(keys) for section, keys in parent.source.items()}
    given = table.pop("source", {})
    if not isinstance(given, Mapping):
        raise WtalError(f"{origin}: [source] must hold one table a section")
    config = from_table(table, parent.config, origin)
    for section, keys in table.items():  # a changed value no longer has the parent's source
        for key, value in keys.items():
            if _plain(value) != _plain(getattr(getattr(parent.config, section), key)):
                source.setdefault(section, {})[key] = f"ours: set by recipe {name}"
    for section, keys in given.items():
        _check_names(section, keys, f"{origin}: [source]")
        source.setdefault(section, {}).update(keys)
    return Recipe(name, config, source)


def from_table(table: Mapping[str, Any], base: RunConfig, origin: str) -> RunConfig:
    """The settings ``base``, changed by a TOML table; ``origin`` is the file that error messages name.

    Raises:
        WtalError: an unknown section or key, or a value that is not valid.
    """
    changed = {}
    for section, values in table.items():
        _check_names(section, values, origin)
        current = getattr(base, section)
        types = _types(type(current))
        for key, value in values.items():
            values = {**values, key: _typed(value, types[key], f"{origin}: {section}.{key}")}
        changed[section] = dataclasses.replace(current, **values)
    try:
        return dataclasses.replace(base, **changed)
    except WtalError as error:
        raise WtalError(f"{origin}: {error}") from None


def to_toml(config: RunConfig, source: Sources | None = None) -> str:
    """All settings as TOML. The source of each value is a comment."""
    lines: list[str] = []
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        lines += ["", f"[{section.name}]"]
        for field in dataclasses.fields(values):
            value = getattr(values, field.name)
            # The text comes from a recipe. A TOML comment has one line and no control characters.
            comment = re.sub(r"[\x00-\x1f\x7f]+", " ", str((source or {}).get(section.name, {}).get(field.name, "")))
            left = f"# {field.name} is not set" if value is None else f"{field.name} = {toml_value(value)}"
            lines.append(f"{left:<44}  # {comment}" if comment else left)
    return "\n".join(lines[1:]) + "\n"


def with_overrides(source: Sources, before: RunConfig, after: RunConfig) -> Sources:
    """The sources after options of the command line have changed ``before`` to ``after``."""
    merged = {section: dict(keys) for section, keys in source.items()}
    for section in dataclasses.fields(before):
        old, new = getattr(before, section.name), getattr(after, section.name)
        for field in dataclasses.fields(old):
            if getattr(old, field.name) != getattr(new, field.name):
                merged.setdefault(section.name, {})[field.name] = "set on the command line"
    return merged


def _read(name_or_path: str | Path) -> tuple[str, str, str]:
    name = str(name_or_path)
    if name in shipped():
        text = resources.files("wtal.settings").joinpath("recipes", f"{name}.toml").read_text("utf-8")
        return text, f"recipe {name}", name
    path = Path(name_or_path)
    if path.suffix != ".toml":
        raise WtalError(
            f"no recipe {name!r}: shipped are {', '.join(shipped())}; for your own, give the path of a .toml file"
        )
    return read_text(path, "a recipe"), str(path), path.stem


def _check_names(section: str, keys: Any, origin: str) -> None:
    """Raise WtalError unless there is such a section, ``keys`` is a table, and the section has all of its keys."""
    sections = _types(RunConfig)
    if section not in sections:
        raise WtalError(f"{origin}: unknown section [{section}]{_meant(section, sections)}")
    if not isinstance(keys, Mapping):
        raise WtalError(f"{origin}: [{section}] must be a table, got {keys!r}")
    for key in keys:
        if key not in (known := _types(sections[section])):
            raise WtalError(f"{origin}: unknown key {section}.{key}{_meant(key, known)}")


def _types(section: type) -> dict[str, Any]:
    return typing.get_type_hints(section)


def _typed(value: Any, expected: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is typing.Literal:
        if value in arguments:
            return value
        raise WtalError(f"{where} = {value!r}: expected one of {', '.join(map(str, arguments))}")
    if origin is tuple:
        if isinstance(value, (list, tuple)) and value:
            return tuple(_typed(item, arguments[0], where) for item in value)
        raise WtalError(f"{where} = {value!r}: expected a list of numbers")
    if origin in (types.UnionType, typing.Union):
        # TOML has no null. A recipe needs it to unset a value of the recipe that it extends.
        return None if value is None or value == "none" else _typed(value, arguments[0], where)
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, expected) and (expected is bool or not isinstance(value, bool)):
        return value
    raise WtalError(f"{where} = {value!r}: expected {expected.__name__}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _meant(word: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(known))}"
