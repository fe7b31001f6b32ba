"""Loads the native library once; every op imports it from here."""

from __future__ import annotations

import torch  # noqa: F401  (the library links against it)

try:
    from wtal import _native
except ImportError as error:
    raise ImportError(
        f"the native kernels of wtal did not load ({error}). In a source tree, install first: 'pip install .', and "
        "where that is done, run python -P or from another folder, so that it finds what is installed; if torch was "
        "replaced by a version older than 2.11, upgrade torch."
    ) from error

build_facts = _native.build_facts
