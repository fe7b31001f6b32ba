"""Writes values as TOML."""

from __future__ import annotations

import json
from typing import Any


def toml_value(value: Any) -> str:
    """A value in TOML syntax."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON's escapes are valid in TOML, except for surrogate pairs, which ensure_ascii=False avoids. TOML also
        # needs an escape for U+007F.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    return repr(value)
