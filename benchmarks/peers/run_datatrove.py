"""datatrove at work, for benchmarks/curation.py; runs in datatrove's own environment (benchmarks/peers/datatrove.txt).

    run_datatrove.py serve             jobs as JSON lines on stdin, answers on stdout: filters and MinHash over chunks of documents
    run_datatrove.py pipeline WARC OUT WORKERS shipped|stated     WARC -> filters -> MinHash in four stages -> Parquet

`stated` puts one tokenizer in place of spaCy's: a token is a word (letters and digits with ASCII's marks between them, but no hyphen,
and no full stop between a small letter and a capital) or one mark, also repeated; MinHash's words are \\w+ of the lower-case text; a
sentence ends with a mark, closing quotes and brackets, and a space.
"""

import contextlib
import io
import json
import re
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup import minhash as minhash_module
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)
from datatrove.utils import word_tokenizers
from datatrove.utils.logging import logger
from datatrove.utils.text import TextNormConfig

TOKEN = re.compile(r"\w+(?:(?!(?<=[a-z])\.[A-Z])[!-,./:-@\[-^`{-~’]+\w+)*|([^\w\s])\1*")
WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"[.!?。！？][\"'”’)\]]*(?=\s|$)")
PATIENCE_S = 60  # for a page; datatrove's own 1 s gives up pages wherever the machine is shared
shipped_tokenizer = word_tokenizers.load_word_tokenizer


class Stated:
    """The stated tokenizer, with the methods that datatrove asks for."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern = pattern

    def word_tokenize(self, text: str) -> list[str]:
        return [match[0] for match in self.pattern.finditer(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        ends = [match.end() for match in SENTENCE.finditer(text)]
        return list(zip([0, *ends], ends))


def use(stated: bool) -> None:
    """Chooses the tokenizer for everything that is made afterwards."""
    from datatrove.utils.text import split_into_parts

    split_into_parts.cache_clear()
    word_tokenizers.load_word_tokenizer = (lambda language: Stated(TOKEN)) if stated else shipped_tokenizer
    minhash_module.load_word_tokenizer = (lambda language: Stated(WORD)) if stated else shipped_tokenizer


def minhash_config(stated: bool) -> MinhashConfig:
    """Returns FineWeb's configuration: 14 buckets of 8 hashes over 5 words."""
    norm = TextNormConfig(
        norm_whitespace=False, remove_punctuation=False, norm_unicode_diacritics=False, norm_numbers=False
    )
    return MinhashConfig(norm_config=norm) if stated else MinhashConfig()


def filters() -> list:
    """Returns FineWeb's filters, as in datatrove's examples/fineweb.py."""
    return [
        GopherRepetitionFilter(),
        GopherQualityFilter(),
        C4QualityFilter(filter_no_terminal_punct=False),
        FineWebQualityFilter(),
    ]


def filtered(texts: list[str]) -> tuple[float, list[str]]:
    """Returns the seconds, and for each text the reason to drop it or ''."""
    steps, reasons = filters(), []
    documents = [Document(text=text, id=str(k)) for k, text in enumerate(texts)]
    start = time.perf_counter()
    for document in documents:
        reason = ""
        for step in steps:
            result = step.filter(document)
            if result is not True:
                reason = f"{type(step).__name__}:{result[1] if isinstance(result, tuple) else ''}"
                break
        reasons.append(reason)
    return time.perf_counter() - start, reasons


def deduplicated(texts: list[str], folder: Path, stated: bool) -> tuple[float, float, list[int]]:
    """Returns the seconds of the signatures and of all stages, and the numbers of the texts that stay."""
    config = minhash_config(stated)
    documents = [Document(text=text, id=str(k)) for k, text in enumerate(texts)]
    start = time.perf_counter()
    MinhashDedupSignature(f"{folder}/sig", config).run(iter(documents), 0, 1)
    signed = time.perf_counter() - start
    for bucket in range(config.num_buckets):
        MinhashDedupBuckets(f"{folder}/sig", f"{folder}/buckets", config=config).run(None, bucket, config.num_buckets)
    MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config).run(None, 0, 1)
    kept = [int(d.id) for d in MinhashDedupFilter(f"{folder}/remove").run(iter(documents), 0, 1)]
    return signed, time.perf_counter() - start, kept


def serve() -> None:
    """Answers jobs: {"what": filters|minhash, "file", "from", "to", "step", "stated", "folder"}."""
    answers, texts = sys.stdout, {}
    sys.stdout = io.StringIO()
    for line in sys.stdin:
        job = json.loads(line)
        if job["file"] not in texts:
            with open(job["file"], encoding="utf-8") as rows:
                texts[job["file"]] = [json.loads(row)["text"] for row in rows]
        chunk = texts[job["file"]][job["from"] : job["to"] : job["step"]]
        use(job["stated"])
        with contextlib.redirect_stderr(io.StringIO()):
            answer = (
                filtered(chunk) if job["what"] == "filters" else deduplicated(chunk, Path(job["folder"]), job["stated"])
            )
        print(json.dumps(answer), file=answers, flush=True)


def pipeline(warc: str, out: str, workers: int, stated: bool) -> None:
    """WARC to Parquet by LocalPipelineExecutor, all stages on `workers` processes; MinHash in its four stages.

    `stated` also takes resiliparse, groundup's extractor, in place of trafilatura.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.extractors import Trafilatura
    from datatrove.pipeline.extractors.base import BaseExtractor
    from datatrove.pipeline.readers import JsonlReader, WarcReader
    from datatrove.pipeline.writers import JsonlWriter, ParquetWriter

    class Resiliparse(BaseExtractor):
        name = "resiliparse"

        def __init__(self) -> None:
            super().__init__(timeout=PATIENCE_S)

        def extract(self, text: str) -> str:
            from resiliparse.extract.html2text import extract_plain_text
            from resiliparse.parse.html import HTMLTree

            return extract_plain_text(HTMLTree.parse(text), main_content=True, alt_texts=False)

    config = minhash_config(stated)
    extractor = Resiliparse() if stated else Trafilatura(favour_precision=True, timeout=PATIENCE_S)

    def run(steps: list, tasks: int, name: str) -> None:
        LocalPipelineExecutor(
            steps, tasks=tasks, workers=min(workers, tasks), logging_dir=f"{out}/log-{name}", skip_completed=False
        ).run()

    run(
        [WarcReader(warc, glob_pattern="*.warc.gz"), extractor, *filters(), JsonlWriter(f"{out}/filtered")],
        workers,
        "filter",
    )
    run([JsonlReader(f"{out}/filtered"), MinhashDedupSignature(f"{out}/sig", config)], workers, "1")
    run([MinhashDedupBuckets(f"{out}/sig", f"{out}/buckets", config=config)], config.num_buckets, "2")
    run([MinhashDedupCluster(f"{out}/buckets", f"{out}/remove", config=config)], 1, "3")
    run(
        [JsonlReader(f"{out}/filtered"), MinhashDedupFilter(f"{out}/remove"), ParquetWriter(f"{out}/documents")],
        workers,
        "4",
    )


if __name__ == "__main__":
    logger.remove()
    if sys.argv[1] == "serve":
        serve()
    else:
        use(sys.argv[5] == "stated")
        pipeline(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5] == "stated")
