"""`groundup eval perplexity`: a model's bits per byte of every document, as a Parquet column that `data build` can filter on.

What a model that was trained on good text finds very surprising is seldom text; what it finds far too easy is often a list or a copy.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from groundup.base.errors import DataError
from groundup.base.files import atomic_file
from groundup.base.log import command, progress, say
from groundup.base.records import Document, read_documents
from groundup.base.runs import open_run, resolve_checkpoint
from groundup.evals.config import PerplexityConfig
from groundup.evals.perplexity import bits_of_each
from groundup.model.weights import load_model
from groundup.parallel.mesh import choose_device
from groundup.tokenizer.io import load as load_tokenizer

__all__ = ["main"]

BATCH = 256  # documents at a time
SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    iterator = iter(documents)
    while batch := list(islice(iterator, BATCH)):
        yield batch


def main(config: PerplexityConfig) -> None:
    """Writes id and bits per byte of every document, and prints how they are spread. Raises: DataError where there is no document."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = resolve_checkpoint(config.run)
    model, tokenizer = load_model(checkpoint, choose_device(config.device)), load_tokenizer(checkpoint)
    schema = pa.schema([("id", pa.large_string()), ("bits_per_byte", pa.float64())])
    found: dict[str, np.ndarray] = {}
    with atomic_file(config.target) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer, \
            progress("scoring", None, "documents") as bar:  # fmt: skip
        for path in config.inputs:
            for batch in _batches(read_documents(path)):
                bits = bits_of_each(model, tokenizer, [d.text[: config.max_chars or None] for d in batch])
                writer.write_table(pa.table([[d.id for d in batch], pa.array(bits, from_pandas=True)], schema=schema))
                found[path.name] = np.append(found.get(path.name, []), bits[~np.isnan(bits)])
                bar.advance(len(batch))
        found = {name: values for name, values in found.items() if len(values)}
        if not found:
            raise DataError(f"{config.inputs[0]}: no document with a text in it")
    say(f"{'bits per byte':24}{'documents':>11}" + "".join(f"{f'{share:.0%} below':>12}" for share in SHARES))
    for name, values in found.items():
        say(f"  {name:22}{len(values):>11,}" + "".join(f"{x:>12.3f}" for x in np.quantile(values, SHARES)))
    limit = np.quantile(next(iter(found.values())), SHARES[-1])  # of what was kept
    before = open_run(config.project, "data").path / "config.toml"
    again = f"{command('data', 'build', config.project)}{f' --config {before}' if before.exists() else ''}"
    say(f"wrote {config.target}\nnext: {again} --scores.path {config.target} "
        f"--scores.column bits_per_byte --scores.better low --scores.most {limit:.3g}")  # fmt: skip
