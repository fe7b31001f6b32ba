"""Coverage-guided fuzzing of one reader, with atheris (``pip install atheris``).

    python -P tests/faults/fuzz.py npy -max_total_time=600     # ten minutes; READER is a key of fuzz_readers.READERS
    python -P tests/faults/fuzz.py npy crash-...               # one input again

Arguments after the reader go to libFuzzer. An input that is neither read nor refused with a WtalError ends the run and
is left in a file ``crash-...`` (or ``timeout-...``, ``oom-...``) in the current folder.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import types
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent))
from fuzz_readers import READERS

FOLLOWED = ("wtal", "json", "tomllib", "csv", "pickle", "zipfile", "numpy.lib", "torch.serialization", "torch._weights")


def main() -> None:
    """Fuzz the reader that the first argument names."""
    name, *arguments = sys.argv[1:] or ["none"]
    if name not in READERS:
        sys.exit(f"expected one of: {', '.join(READERS)}")
    reader = READERS[name]
    for function in [each for each in gc.get_objects() if isinstance(each, types.FunctionType)]:
        if (function.__module__ or "").startswith(FOLLOWED):
            atheris.instrument_func(function)
    warnings.simplefilter("ignore")
    place = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    path = reader.prepare(place / "folder")
    corpus = place / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(reader.seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    words = place / "words"
    words.write_text("".join('"' + "".join(f"\\x{b:02x}" for b in word) + '"\n' for word in reader.words))
    again = any(os.path.isfile(word) for word in arguments)
    options = [
        "-timeout=20",
        "-rss_limit_mb=3000",
        *([f"-dict={words}"] if reader.words else []),
        *([] if again else [str(corpus)]),
    ]
    atheris.Setup([sys.argv[0], *arguments, *options], lambda data: reader.try_on(path, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
