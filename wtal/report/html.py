"""The report as one HTML file: template, style and scripts of ``page/`` with the data, without external resources.

Two measures prevent that text from the data is executed as markup or code. In the payload ``<`` is escaped, so no text
can close the script element. The page's Content-Security-Policy allows only the one script and the one style sheet with
the right hash.
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
    """The HTML page.

    Args:
        payload: the data from :func:`wtal.report.payload.payload`.
        title: title of the document.
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
    """JSON that is safe inside a ``<script>`` element. Numbers that are not finite become null."""
    text = dumps(payload, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _read(name: str) -> str:
    return resources.files("wtal.report").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
