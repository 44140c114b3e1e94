"""What a user can choose about the data. Thresholds carry the name of their rule; the papers' values stand beside ours."""

import re
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from groundup.base.config import load_toml
from groundup.base.errors import ConfigError
from groundup.base.runs import open_run
from groundup.data.skills import DEMO_SKILLS, SKILLS

__all__ = ["BuildConfig", "C4Config", "CleanConfig",
           "DecontaminateConfig", "DedupConfig", "GetConfig", "GopherConfig", "LanguageConfig", "ReadConfig",
           "RepetitionConfig", "ScoresConfig", "WebConfig", "WorldConfig"]  # fmt: skip


@dataclass(frozen=True)
class ReadConfig:
    """How files are opened, and how far a hostile one may go."""

    max_chars: int = 50_000  # a longer plain text or book is cut between paragraphs into documents of this length
    max_record_mb: int = (
        48  # a page, row or source file larger than this is left out and named (cleaning takes 32 times as much memory)
    )
    max_expansion: int = 100  # a packed file may grow to this multiple of its size (or to 64 MB); more is a bomb
    code: bool = True  # read source code found in folders
    keep_damaged: bool = False  # use what is whole in damaged files even where there is nothing else


@dataclass(frozen=True)
class CleanConfig:
    """Cleaning changes texts; nothing here drops a document unless nothing is left of it."""

    extractor: Literal["resiliparse", "trafilatura"] = (
        "resiliparse"  # what finds a page's content; the second, 15 times as slow: pip install 'groundup[web]'
    )
    mend: bool = True  # text that was decoded wrongly (cafÃ©, donâ€™t) is set right
    placeholders: bool = True  # e-mail and IP addresses, phone and card numbers become <EMAIL>, <IP>, <PHONE>, <CARD>
    unwrap: bool = True  # join the hard-wrapped lines of a paragraph in plain text and books
    boilerplate: bool = True  # remove lines that many pages of one site share, and consent lines
    boilerplate_pages: int = 8  # ... on at least this many pages of the site
    boilerplate_share: float = 0.02  # ... and on this share of them, at the top or the bottom of the page
    boilerplate_anywhere: float = 0.25  # ... or on this share of them, anywhere in the page


@dataclass(frozen=True)
class LanguageConfig:
    """Which languages stay. Code isn't asked."""

    wanted: tuple[str, ...] = ("en",)  # ISO codes; an empty list keeps every language
    min_score: float = 0.65  # how sure another language must be for a document to leave (FineWeb: 0.65 of English)
    min_letters: int = 20  # shorter texts aren't judged


@dataclass(frozen=True)
class GopherConfig:
    """Gopher's quality rules (Rae et al. 2021, table A1). Short documents are welcome here, hence the low minimum."""

    enabled: bool = True  # apply these rules
    min_words: int = 10  # fewer words than this, marks not counted (paper: 50)
    max_words: int = 100_000  # more words than this (paper: 100,000)
    min_word_length: float = 2.0  # mean characters a word (paper: 3; arithmetic needs less)
    max_word_length: float = 10.0  # mean characters a word (paper: 10)
    max_symbol_ratio: float = 0.1  # '#' or '...' for each token (paper: 0.1)
    max_bullet_lines: float = 0.9  # share of lines that begin with a bullet (paper: 0.9)
    max_ellipsis_lines: float = 0.3  # share of lines that end with an ellipsis (paper: 0.3)
    min_alpha_words: float = 0.4  # share of tokens with a letter (paper: 0.8; arithmetic needs less)
    min_stop_words: int = 2  # how many of the, be, to, of, and, that, have, with occur (paper: 2)
    long_words: int = 50  # ratios and stop words are judged from this many words on


@dataclass(frozen=True)
class RepetitionConfig:
    """Gopher's repetition rules (table A1): shares of a text that it says again. Runs of words are judged within windows: a long
    text repeats itself more than a short one, and the paper's values were made for pages."""

    enabled: bool = True  # apply these rules
    min_words: int = 30  # shorter texts aren't judged
    min_line_chars: int = 15  # shorter lines (table cells, headings) aren't counted as lines (paper: all are)
    max_paragraph_share: float = 0.3  # paragraphs that occurred before (paper: 0.3)
    max_paragraph_chars: float = 0.2  # characters in such paragraphs (paper: 0.2)
    max_line_share: float = 0.3  # lines that occurred before (paper: 0.3)
    max_line_chars: float = 0.2  # characters in such lines (paper: 0.2)
    window: int = 2000  # tokens within which runs of words are compared (0: in all the text, where a top run counts even once: FineWeb)
    top_2: float = 0.2  # characters in the most frequent pair of words (paper: 0.2)
    top_3: float = 0.18  # ... three words (paper: 0.18)
    top_4: float = 0.16  # ... four words (paper: 0.16)
    max_repeated_5: float = 0.3  # characters in repeated runs of 5 words; 0.01 less for each word more (paper: 0.15)


@dataclass(frozen=True)
class C4Config:
    """C4's rules (Raffel et al. 2020). It removes lines, too; here that is off, for cleaning has done the most of it already."""

    enabled: bool = True  # apply these rules
    min_sentences: int = 1  # sentences in a page (C4: 5)
    curly_brackets: bool = False  # drop texts with a '{' (C4: yes; here code is welcome)
    line_sentences: bool = False  # count a line without a full stop as a sentence too (datatrove does)
    citations: bool = False  # remove [1], [edit] and [citation needed] (C4: yes)
    min_line_words: int = 0  # remove lines with fewer words (C4: 3)
    max_word_chars: int = 0  # remove lines with a longer word (C4: 1000; 0: any length)
    unended_lines: bool = False  # remove lines that don't end like a sentence (C4: yes; FineWeb: no)
    javascript_lines: bool = False  # remove lines with the word javascript (C4: yes)
    policy_lines: bool = False  # remove lines that speak of cookies and terms of use (C4: yes)


@dataclass(frozen=True)
class WebConfig:
    """What FineWeb and we ourselves hold against pages; plain text, books and code are spared the line rules."""

    enabled: bool = True  # apply these rules
    blocked_urls: tuple[str, ...] = ("casino", "porn", "viagra", "xxx")  # words of an address that block it
    blocklist: Path | None = None  # a file with one host or word a line, added to those
    words: Path | None = None  # a file with one word or phrase a line: a text that holds one leaves
    pages_only: bool = True  # the rules about sentences and lines are for HTML pages only (FineWeb: for all)
    min_line_punctuation: float = 0.12  # share of lines that end with a full stop of any script (FineWeb: 0.12)
    max_short_lines: float = 0.67  # share of lines of at most `short_line_chars` (FineWeb: 0.67)
    short_line_chars: int = 30  # characters of a short line (FineWeb: 30)
    max_repeated_chars: float = 1.0  # share of characters in lines that occurred before (FineWeb: 0.01)
    max_line_breaks: float = 0.3  # line breaks for each token (FineWeb: 0.3)
    min_lines: int = 10  # the line rules are judged from this many lines on (FineWeb: all)
    max_shouting: float = 0.25  # exclamation marks and words in capitals, for each word
    max_false_arithmetic: float = 0.3  # share of false claims such as 3 + 4 = 8 ...
    min_claims: int = 3  # ... where at least this many can be checked


@dataclass(frozen=True)
class DedupConfig:
    """Exact and near duplicates. A pair of Jaccard similarity J meets with probability 1 - (1 - J^rows)^bands."""

    exact: bool = True  # drop documents with the same text
    urls: bool = False  # drop all but one of the documents from one address
    near: bool = True  # drop documents with nearly the same text (MinHash)
    units: Literal["none", "line", "paragraph"] = (
        "none"  # cut these out of a text where another document has them already
    )
    unit_chars: int = 60  # ... of at least this many bytes
    substring_chars: int = (
        0  # cut out stretches of at least this many bytes that occur before (0: off; a usual value is 200)
    )
    ngram: int = 5  # words a shingle
    bands: int = 20  # bands of the signature
    rows: int = 6  # numbers a band
    min_similarity: float = 0.7  # estimated Jaccard similarity of a pair, at least
    min_words: int = 10  # shorter texts are compared exactly only
    seed: int = 1  # of the hash functions


@dataclass(frozen=True)
class ScoresConfig:
    """Scores that another program gave the documents: `data classifier score`, or a model's perplexity."""

    path: Path | None = None  # a Parquet file with a column `id` and one with the scores
    column: str = "score"  # the scores' column
    least: float = -1e30  # a document with less leaves; one without a score stays
    most: float = 1e30  # a document with more leaves (for a perplexity)
    better: Literal["high", "low"] = "high"  # which of two duplicates is the better one (a perplexity: low)


@dataclass(frozen=True)
class DecontaminateConfig:
    """Documents that contain an evaluation problem leave the training text."""

    paths: tuple[Path, ...] = ()  # JSONL files of problems; default: PROJECT/tasks/problems-test.jsonl where it exists
    ngram: int = 13  # words in a row shared with a problem; all of it for the project's own, made from templates
    min_words: int = 5  # a shorter problem counts when all of it occurs; with fewer words than this it doesn't


@dataclass(frozen=True)
class BuildConfig:
    """Raw files -> documents.parquet, heldout.parquet, dropped.parquet, stats.json."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    name: str = "main"  # the run's name
    input: tuple[Path, ...] = ()  # files, folders, git repositories, s3://... (default: PROJECT/raw, or as last time)
    filters: Literal["all", "fineweb", "none"] = (
        "all"  # fineweb: its published thresholds; none: the decoded text as it is
    )
    heldout: float = 0.05  # share of documents that training never sees
    split: Literal["hash", "tail"] = "hash"  # held out by each document's hash, or the end of each text
    mix: tuple[str, ...] = ()  # SOURCE=WEIGHT: below 1 keeps that share of a source's documents, above 1 repeats them
    mix_temperature: float = 1.0  # T: sources without a weight share their bytes as bytes^(1/T); high: all equal
    max_epochs: float = (
        16.0  # no source is repeated more often (Muennighoff et al. 2023: beyond 4 times it teaches little)
    )
    processes: int = 0  # worker processes (0: as many as cores, and one for small inputs)
    engine: Literal["local", "ray"] = "local"  # where they run: here, or on Ray: pip install 'groundup[ray]'
    address: str = ""  # of a running Ray cluster (auto: the one that runs here); without one, --engine ray starts its own on this machine
    read: ReadConfig = field(default_factory=ReadConfig)
    clean: CleanConfig = field(default_factory=CleanConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    gopher: GopherConfig = field(default_factory=GopherConfig)
    repetition: RepetitionConfig = field(default_factory=RepetitionConfig)
    c4: C4Config = field(default_factory=C4Config)
    web: WebConfig = field(default_factory=WebConfig)
    dedup: DedupConfig = field(default_factory=DedupConfig)
    scores: ScoresConfig = field(default_factory=ScoresConfig)
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The files and folders to read, the default filled in."""
        return self.input or (self.project / "raw",)

    def remembered(self) -> "BuildConfig":
        """Returns the config; where nothing is named and there is no PROJECT/raw, it reads again what the last run read."""
        last = open_run(self.project, "data", self.name).path / "config.toml"
        if self.input or (self.project / "raw").exists() or not last.exists():
            return self
        return replace(self, input=tuple(map(Path, load_toml(last)["input"])))

    @property
    def problems(self) -> tuple[Path, ...]:
        """The evaluation files whose problems must not be in the training text."""
        default = self.project / "tasks" / "problems-test.jsonl"
        return self.decontaminate.paths or ((default,) if default.exists() else ())

    def effective(self) -> "BuildConfig":
        """Returns the config with the thresholds that `filters` stands for: FineWeb's own where that is asked for.

        Source: Penedo et al. 2024, and datatrove's examples/fineweb.py.
        """
        if self.filters != "fineweb":
            return self
        gopher = replace(self.gopher, min_words=50, min_word_length=3.0, min_alpha_words=0.8, long_words=0)
        repetition = replace(self.repetition, min_words=0, min_line_chars=0, window=0, max_repeated_5=0.15)
        c4 = replace(self.c4, min_sentences=5, curly_brackets=True, line_sentences=True, citations=True, min_line_words=3,
                     max_word_chars=1000, javascript_lines=True, policy_lines=True)  # fmt: skip
        web = replace(
            self.web, pages_only=False, max_repeated_chars=0.01, min_lines=0, max_shouting=1e9, max_false_arithmetic=1.0
        )
        return replace(self, gopher=gopher, repetition=repetition, c4=c4, web=web)

    def weights(self) -> dict[str, float]:
        """Returns the sources' weights. Raises: ConfigError for an entry that isn't SOURCE=WEIGHT."""
        weights = {}
        for entry in self.mix:
            source, _, number = entry.rpartition("=")
            try:
                weights[source] = float(number)
            except ValueError:
                weights[source] = -1.0
            if not source or not 0 <= weights[source] <= self.max_epochs:
                raise ConfigError(
                    f"mix: {entry!r} should be SOURCE=WEIGHT with a weight from 0 to {self.max_epochs:g} (max_epochs), say wiki.xml.bz2=2"
                )
        return weights

    def validate(self) -> None:
        """Raises: ConfigError naming the first key with a value that can't be."""
        open_run(self.project, "data", self.name)
        self.weights()
        positive = {"read.max_chars": self.read.max_chars, "read.max_record_mb": self.read.max_record_mb, "dedup.ngram": self.dedup.ngram,
                    "read.max_expansion": self.read.max_expansion, "dedup.bands": self.dedup.bands, "dedup.rows": self.dedup.rows,
                    "decontaminate.ngram": self.decontaminate.ngram, "decontaminate.min_words": self.decontaminate.min_words}  # fmt: skip
        for key, value in positive.items():
            if value < 1:
                raise ConfigError(f"{key}: expected at least 1, not {value}")
        if self.dedup.substring_chars and self.dedup.substring_chars < 20:
            raise ConfigError(
                f"dedup.substring_chars: {self.dedup.substring_chars} is too short; expected 0 (off) or at least 20"
            )
        shares = {"heldout": self.heldout, "dedup.min_similarity": self.dedup.min_similarity,
                  "language.min_score": self.language.min_score, "clean.boilerplate_share": self.clean.boilerplate_share,
                  "web.max_false_arithmetic": self.web.max_false_arithmetic,
                  "web.max_repeated_chars": self.web.max_repeated_chars}  # fmt: skip
        for key, share in shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"{key}: expected a share from 0 to 1, not {share:g}")
        if self.heldout > 0.5:
            raise ConfigError(f"heldout: {self.heldout:g} would leave less to train on than to test on; at most 0.5")
        if self.decontaminate.min_words > self.decontaminate.ngram:
            raise ConfigError("decontaminate.min_words: expected at most decontaminate.ngram")
        for key, number in {"mix_temperature": self.mix_temperature, "max_epochs": self.max_epochs}.items():
            if not 1 <= number < 1e6:
                raise ConfigError(f"{key}: expected a number from 1 on, not {number:g}")
        for key, path in {
            "scores.path": self.scores.path,
            "web.blocklist": self.web.blocklist,
            "web.words": self.web.words,
        }.items():
            if path is not None and not path.is_file():
                raise ConfigError(f"{key}: {path} is no file")
        if self.clean.extractor == "trafilatura" and find_spec("trafilatura") is None:
            raise ConfigError("clean.extractor: trafilatura isn't installed: pip install 'groundup[web]'")
        if self.processes < 0:
            raise ConfigError(f"processes: expected 0 (auto) or more, not {self.processes}")
        if self.address and self.engine != "ray":
            raise ConfigError(f"address: {self.address} is for --engine ray")

    def describe(self) -> list[str]:
        """Returns what the command reads and would write."""
        out = open_run(self.project, "data", self.name).path
        lines = [f"read {path}" for path in self.remembered().inputs]
        lines += [f"drop documents that contain a problem of {path}" for path in self.problems]
        lines.append(
            f"hold out {self.heldout:.0%} of the documents, {'by hash' if self.split == 'hash' else 'the end of each text'}"
        )
        return [*lines, f"write {out}/documents.parquet, heldout.parquet, dropped.parquet, stats.json"]


@dataclass(frozen=True)
class GetConfig:
    """Download one of the registered public data sets, or files of a Common Crawl."""

    dataset: Positional[str] = ""  # its name, or commoncrawl; without one the list is printed
    to: Path = Path("raw")  # the folder that receives the file
    crawl: str = ""  # commoncrawl: which one, as CC-MAIN-2025-05 (their names: https://index.commoncrawl.org/)
    segments: int = 1  # commoncrawl: how many of its 80,000 or so files, spread over all of it
    files: Literal["warc", "wet"] = (
        "warc"  # commoncrawl: the pages as they were (1 GB a file), or their bare text (0.1 GB)
    )
    base_url: str = "https://data.commoncrawl.org"  # commoncrawl: where it lies; a mirror's address works as well
    delay_s: float = 1.0  # commoncrawl: seconds between two files; there is never more than one connection
    retries: int = 5  # attempts without a new byte before giving up, with growing pauses
    timeout_s: float = 30.0  # seconds without a byte until an attempt counts as failed

    def validate(self) -> None:
        """Raises: ConfigError for a number or a name that can't be."""
        if self.dataset == "commoncrawl" and not re.fullmatch(r"[A-Za-z0-9-]+(?:/\d+)*", self.crawl):
            raise ConfigError(
                f"crawl: expected a crawl's name, as CC-MAIN-2025-05, not {self.crawl!r}; they are listed on https://index.commoncrawl.org/"
            )
        if self.crawl and self.dataset != "commoncrawl":
            raise ConfigError("crawl: is for `groundup data get commoncrawl` only")
        if self.segments < 1:
            raise ConfigError(f"segments: expected at least 1, not {self.segments}")
        if not self.base_url.startswith(("http://", "https://")):
            raise ConfigError(f"base_url: expected an address with http:// or https://, not {self.base_url!r}")
        if self.delay_s < 0:
            raise ConfigError(f"delay_s: expected 0 or more seconds, not {self.delay_s:g}")
        if self.retries < 1:
            raise ConfigError(f"retries: expected at least 1, not {self.retries}")
        if self.timeout_s <= 0:
            raise ConfigError(f"timeout_s: expected a positive number of seconds, not {self.timeout_s:g}")

    def describe(self) -> list[str]:
        """Returns what would be fetched."""
        if self.dataset == "commoncrawl":
            listing = f"{self.base_url.rstrip('/')}/crawl-data/{self.crawl}/{self.files}.paths.gz"
            return [
                f"fetch {self.segments} of the files that {listing} names into {self.to}/{self.crawl.replace('/', '-')}/"
            ]
        return [f"fetch {self.dataset} into {self.to}/" if self.dataset else "list the registered data sets"]


@dataclass(frozen=True)
class WorldConfig:
    """The small world as raw sources and tasks."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    seed: int = 0  # another seed, another world (the held-out problems stay the same)
    documents: int = 4000  # good documents; pages that should be dropped come on top of them
    skills: tuple[str, ...] = DEMO_SKILLS  # the skills that the world is about; all: every one of them
    demonstrations: int = 12000  # conversations to learn answering from
    problems: int = 20000  # problems to practise on, without answers that a person wrote

    def validate(self) -> None:
        """Raises: ConfigError naming the key with a value that can't be."""
        for key, low in {"seed": 0, "documents": 24, "demonstrations": 1, "problems": 1}.items():
            if getattr(self, key) < low:
                raise ConfigError(f"{key}: expected at least {low}, not {getattr(self, key)}")
        if unknown := [name for name in self.skills if name not in (*SKILLS, "all")]:
            raise ConfigError(f"skills: no skill '{unknown[0]}'; there are {', '.join(SKILLS)}, or all")
        if not self.skills:
            raise ConfigError("skills: name at least one")

    def describe(self) -> list[str]:
        """Returns what the command would write."""
        return [
            f"write {self.project}/raw: {self.documents} documents about {', '.join(self.skills)}, with the web's dirt",
            f"write {self.project}/tasks: {self.demonstrations} demonstrations, {self.problems} problems, and held-out problems",
        ]
