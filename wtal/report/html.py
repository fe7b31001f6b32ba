"""The report as one HTML file: template, style and scripts of ``page/`` around a payload, nothing fetched.

Two locks keep data from becoming markup or code: in the payload ``<`` is written as an escape, so no text can end its
element, and the page's Content-Security-Policy admits the one script and the one style sheet by their hash.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from wtal.platform.as_json import dumps

_SCRIPTS = ("dom", "localize", "charts", "sections", "timeline", "sliders", "explorer", "app")


def html(payload: Mapping[str, Any], title: str) -> str:
    """The page.

    Args:
        payload: what :func:`wtal.report.payload.payload` made.
        title: of the document.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style = _read("page.css")
    script = '"use strict";\n' + "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    template = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True).from_string(
        _read("page.html")
    )
    return template.render(
        title=title,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        payload=Markup(to_json(payload)),
    )


def to_json(payload: Mapping[str, Any]) -> str:
    """JSON that may stand inside a ``<script>`` element; what is not finite becomes null."""
    text = dumps(payload, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _read(name: str) -> str:
    return resources.files("wtal.report").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
