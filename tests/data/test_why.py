"""Reasons to look at: samples in a pager, the page of sums, thresholds tried on what was measured."""

import contextlib
import json
import os
import pty
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.base.config import from_dict, load_toml
from groundup.base.errors import ConfigError, DataError
from groundup.base.records import Document
from groundup.cli import main as run_cli
from groundup.data import config_why, peek, retune, stats, why
from groundup.data.build import build
from groundup.data.config import BuildConfig, WebConfig
from groundup.data.config_why import PeekConfig, RetuneConfig, StatsConfig, WhyConfig, finished
from groundup.data.quality import GATES, RULES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of 60 good texts and of one that breaks each of a few rules; nothing may be written into it."""
    dice, project = random.Random(0), tmp_path_factory.mktemp("judged") / "p"
    words = "the of and with a house river people said day went have that winter engine letter market village".split()  # noqa: SIM905

    def text(sentences: int = 12) -> str:
        return " ".join(f"The {' '.join(dice.choices(words, k=11))}{dice.randrange(1000)}." for _ in range(sentences))

    rows = [{"id": f"d{k}", "text": text(), "url": f"https://a.example/{k}"} for k in range(60)]
    rows += [{"id": "copy", "text": rows[3]["text"]}, {"id": "tiny", "text": "Too short."},
             {"id": "loud", "text": " ".join(["The MILL and the RIVER have that ENGINE!!!"] + [text(1).upper() for _ in range(6)])},
             {"id": "german", "text": "Der Hund spielt im Garten, und die Kinder lachen über das schöne Wetter am Meer. " * 3},
             {"id": "twice", "text": "\n\n".join([text(3)] * 4)},
             {"id": "banned", "text": f"{text()} Buy it at the Shop of Horrors."},
             {"id": "listed", "text": text(), "url": "https://www.bad.example/1"}]  # fmt: skip
    (project / "raw").mkdir(parents=True)
    lines = [json.dumps(row) + "\n" for row in rows]
    (project / "raw" / "a.jsonl").write_text("".join(lines[:40]), encoding="utf-8")
    (project / "raw" / "b.jsonl").write_text("".join(lines[40:]), encoding="utf-8")
    (project / "raw" / "photo.xyz").write_bytes(b"\0")
    (project / "raw" / "node_modules").mkdir()
    (project / "words.txt").write_text("shop of horrors\n", encoding="utf-8")
    (project / "hosts.txt").write_text("# hosts\nbad.example\n", encoding="utf-8")
    build(BuildConfig(project=project, web=WebConfig(words=project / "words.txt", blocklist=project / "hosts.txt")))
    return project


def test_peek_shows_the_dropped_with_their_reason(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peek.main(PeekConfig(judged, stage="quality", n=50))
    shown = capsys.readouterr().out
    for id_, rule in (("tiny", "gopher_min_words"), ("loud", "shouting"), ("banned", "word_list")):
        assert re.search(rf":{id_} .*\n.*rule '{rule}'", shown), id_
    assert "Too short." in shown
    assert "german" not in shown
    peek.main(PeekConfig(judged, rule="blocklist"))
    assert re.search(r":listed .*\n.*stage 'url', rule 'blocklist'\n +measured bad.example", capsys.readouterr().out)
    peek.main(PeekConfig(judged, dropped=True, source="b.jsonl", n=1, chars=20))
    shown = capsys.readouterr().out
    assert shown.startswith("1 of 1: b.jsonl:")
    assert re.search(r"\n1 of \d such documents; --seed 1 shows others\n$", shown)


def test_peek_shows_the_kept_and_no_more_than_asked(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peek.main(PeekConfig(judged, n=3, chars=40))
    shown = capsys.readouterr().out
    assert shown.count("kept for training") == 3
    assert len(re.findall(r"\[\.\.\. \d+ more characters\]", shown)) == 3
    peek.main(PeekConfig(judged, n=3, chars=40, seed=1))
    assert capsys.readouterr().out != shown


def test_a_file_that_was_left_aside_is_explained(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {"photo.xyz": ("photo.xyz", "unknown_type", "'.xyz' is no text that groundup reads"),
               "node_modules/a/b.js": ("node_modules", "vendored", "generated or foreign files")}  # fmt: skip
    for name, (place, rule, said) in reasons.items():
        why.main(WhyConfig(judged, name))
        assert capsys.readouterr().out == f"{place}: left aside while reading, rule '{rule}'\n  ({said})\n"
    with pytest.raises(DataError, match=r"no document of .* has this id or address; did you mean a\.jsonl:d1"):
        why.main(WhyConfig(judged, "a.jsonl:d100"))
    with pytest.raises(DataError, match=r"has no text to show; .* says why"):
        peek.main(PeekConfig(judged, rule="unknown_type"))
    stats.main(StatsConfig(judged))
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[1:4] == [
        ["read", "unknown_type", "1", "photo.xyz"],
        ["read", "vendored", "1", "node_modules"],
        ["read", "67", shown[3][2]],
    ]


def test_peek_uses_a_pager_on_a_terminal(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[str] = []
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("pydoc.pager", pages.append)
    peek.main(PeekConfig(judged, n=1))
    assert "kept for training" in pages[0]


def test_a_key_ends_the_pager(judged: Path) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "groundup", "data", "peek", str(judged), "--n", "8"]
    env = os.environ | {"TERM": "xterm", "LINES": "10", "PAGER": shutil.which("less") or "more"}
    with subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as running:
        os.close(theirs)
        shown = b""
        while b"1 of " not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b" q")
        with contextlib.suppress(OSError):  # what Linux says of a terminal that nobody has open any more
            while more := os.read(ours, 4096):
                shown += more
    os.close(ours)
    assert running.returncode == 0
    assert b"Traceback" not in shown


@pytest.mark.parametrize("n", ["1", "200"])
def test_a_pipe_that_closes_ends_it_in_silence(judged: Path, n: str) -> None:
    words = [sys.executable, "-m", "groundup", "data", "peek", str(judged), "--n", n]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        said = running.stderr.read()
    assert (running.returncode, said) == (0, b"")


def test_a_sample_does_not_depend_on_the_order() -> None:
    documents = [Document(f"d{k}", "") for k in range(100)]
    chosen = {d.id for d in peek.sample(documents, 7, 0)}
    assert {d.id for d in peek.sample(documents[::-1], 7, 0)} == chosen
    assert len(chosen) == 7
    assert [d.id for d in peek.sample(documents, 200, 0)] == [d.id for d in documents]


@pytest.mark.parametrize(("words", "said"), [
    (["peek", "--rule", "shoutin"], "did you mean shouting?"), (["peek", "--stage", "qqq"], "the stage 'qqq'; there are"),
    (["peek", "--source", "c.jsonl"], "the source 'c.jsonl'; did you mean"), (["peek", "--n", "0"], "n: expected at least 1"),
    (["peek", "--rule", "exact", "--stage", "quality"], "no dropped document has all of this"),
    (["retune", "--set", "gopher.min_word=3"], "did you mean 'gopher.min_words'"), (["retune", "--set", "gopher.min_words"], "KEY=VALUE"),
    (["retune", "--set", "gopher.min_words=many"], "gopher.min_words: expected int, not 'many'"),
    (["retune", "--set", "web.short_line_chars=3"], "can't be tried without a new build"), (["retune", "--apply"], "nothing is changed"),
    (["retune", "--set", "web.max_repeated_chars=3"], "expected a share from 0 to 1"),
])  # fmt: skip
def test_mistakes_are_one_line(judged: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert run_cli(["data", words[0], str(judged), *words[1:]]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_page_holds_the_sums_and_an_example_of_every_rule(judged: Path, tmp_path: Path) -> None:
    stats.main(StatsConfig(judged, html=tmp_path / "stats.html"))
    page = (tmp_path / "stats.html").read_text(encoding="utf-8")
    found = json.loads((judged / "01-data/main/stats.json").read_text(encoding="utf-8"))
    for row in found["funnel"]:
        assert f"<summary>{row['rule']}</summary>" in page
        assert row["example_id"] in page
    assert "shop of horrors" in page.lower()
    assert not re.search(r"https?://(?!a\.example)|<script|<link", page)  # self-contained
    assert "a.jsonl" in page
    assert "is_de" in page


def test_the_sums_cover_every_document_once(judged: Path) -> None:
    run = finished(StatsConfig(judged))
    found, written = stats.tally(run), json.loads((run.path / "stats.json").read_text(encoding="utf-8"))
    everything = sum(counts.total() for counts in found.sources.values())
    assert everything == written["raw_documents"] == sum(c.total() for c in found.lengths.values())
    assert sum(c["kept"] for c in found.sources.values()) == written["kept"]
    assert found.languages["de"]["dropped"] == 1
    for row in written["funnel"]:
        if row["stage"] == "language":
            assert sum(c["language"] for c in found.sources.values()) == row["dropped"]


def test_copies_of_the_mix_are_counted_once(tmp_path: Path, judged: Path) -> None:
    config = BuildConfig(project=tmp_path / "p", input=(judged / "raw",), mix=("a.jsonl=3",), split="hash")
    found = stats.tally(build(config))
    assert sum(counts.total() for counts in found.sources.values()) == 67


def test_every_threshold_can_be_tried() -> None:
    """Each key that `retune` takes changes what some rule is held against, or when; none changes what is measured."""
    base = BuildConfig()
    kinds = config_why.keys(BuildConfig)
    for key in retune.KEYS:
        section, _, name = key.partition(".")
        value = getattr(getattr(base, section), name)
        text = str(not value).lower() if kinds[key] is bool else str(value * 0.5 if kinds[key] is float else value + 1)
        new = retune.changed(base, {key: text})
        moved = [rule.threshold(new) != rule.threshold(base) for rule in RULES]
        assert any(moved) or key in GATES, key


def test_what_retune_foretells_is_what_a_build_does(
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished(RetuneConfig(judged))
    old = from_dict(BuildConfig, load_toml(run.path / "config.toml"))
    new = retune.changed(old, {"web.max_shouting": "0.9", "gopher.min_words": "100"})
    change = retune.compare(run.path / "features.parquet", old, new, 3)
    again = build(replace(new, project=tmp_path / "p", input=(judged / "raw",)))
    written = json.loads((again.path / "stats.json").read_text(encoding="utf-8"))
    dropped = {row["rule"]: row["dropped"] for row in written["funnel"]}
    assert (
        dropped["gopher_min_words"]
        == change.rules["gopher_min_words"]["after"]
        > change.rules["gopher_min_words"]["before"]
        == 1
    )
    assert dropped.get("shouting", 0) == change.rules["shouting"]["after"] == 0
    assert change.rules["shouting"]["before"] == 1
    assert {name for _, name, _ in change.samples["returns"]} == set()  # the loud one is too short now
    assert change.moved["leaves"] == len(change.samples["leaves"]) == change.rules["gopher_min_words"]["after"] - 2


def test_retune_shows_the_changes_and_the_command_of_the_rebuild(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli(["data", "retune", str(judged), "--set", "web.max_shouting=0.9", "web.pages_only=false"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"shouting +0\.25 -> 0\.9 +1 +0 +-1\n", shown)
    assert "would pass again: 1, for example\n  b.jsonl:loud: shouting" in shown
    assert re.search(
        r"next: .*data build .* --config .*01-data/main/config.toml --web.max-shouting 0.9 --web.no-pages-only\n$",
        shown,
    )


def test_retune_without_changes_lists_the_keys(judged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    retune.main(RetuneConfig(judged))
    shown = capsys.readouterr().out
    assert all(key in shown for key in retune.KEYS)
    assert re.search(r"shouting +web.max_shouting +≤ 0.25 +1 ", shown)


def test_retune_writes_the_config_of_the_rebuild(
    judged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = BuildConfig(project=tmp_path / "p", input=(judged / "raw" / "b.jsonl",))
    build(config)
    retune.main(RetuneConfig(config.project, set=("gopher.min_words=2",), apply=True))
    assert f"--config {config.project}/data.toml" in capsys.readouterr().out
    assert run_cli(["data", "build", "--config", str(config.project / "data.toml")]) == 0
    assert "gopher_min_words" not in (config.project / "01-data/main/stats.json").read_text(encoding="utf-8")


def test_retune_refuses_what_it_cannot_know(judged: Path, tmp_path: Path) -> None:
    config = BuildConfig(project=tmp_path / "p", input=(judged / "raw",), filters="none")
    build(config)
    with pytest.raises(DataError, match="no rule was asked"):
        retune.main(RetuneConfig(config.project, set=("gopher.min_words=2",)))
    with pytest.raises(ConfigError, match="no effect: --filters fineweb sets it to 50"):
        retune.changed(replace(config, filters="fineweb"), {"gopher.min_words": "2"})


def test_the_table_of_rules_in_the_documentation_is_true() -> None:
    """docs/data.md: the rules in their order, their keys and both columns of thresholds."""
    rows = re.findall(
        r"^\| `(\w+)` \|[^|]*\| `([\w.]+)` \| ([^|]*) \| ([^|]*) \|",
        (ROOT / "docs" / "data.md").read_text("utf-8"),
        re.M,
    )
    assert [name for name, *_ in rows] == retune.NAMES
    for name, key, *written in rows:
        rule = next(rule for rule in RULES if rule.name == name)
        assert key == rule.key
        for config, text in zip((BuildConfig(), BuildConfig(filters="fineweb").effective()), written):
            limit = rule.threshold(config)
            never = limit >= (1 if rule.feature == "repeated_page_chars" else 1e6)
            assert text == ("off" if never else f"{'≥' if rule.least else '≤'} {limit:,}"), name
