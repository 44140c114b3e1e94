"""`data build` from end to end: outputs, held-out split, leaks, raw mode, mixing, resume, and why each document went where."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.base.errors import ConfigError
from groundup.base.records import Document, read_documents
from groundup.cli import main as run_cli
from groundup.data.build import build
from groundup.data.config import BuildConfig, DedupConfig, RepetitionConfig
from groundup.data.config_why import StatsConfig, WhyConfig
from groundup.data.mix import copies, unit_hash
from groundup.data.stats import main as stats
from groundup.data.why import explain, find
from groundup.data.why import main as why

NOUNS = (
    "cat",
    "house",
    "river",
    "garden",
    "letter",
    "winter",
    "teacher",
    "bridge",
    "market",
    "island",
    "engine",
    "window",
)
VERBS = ("saw", "built", "crossed", "painted", "found", "left", "remembered", "described", "followed", "opened")


def article(dice: random.Random, sentences: int = 8) -> str:
    """English enough for the language model and the stop words, and different every time."""
    pick = dice.choice
    return " ".join(
        f"The {pick(NOUNS)} of the {pick(NOUNS)} {pick(VERBS)} a {pick(NOUNS)} with {dice.randrange(1000)} {pick(NOUNS)}s, "
        f"and it was {pick(VERBS)} by the {pick(NOUNS)} that they have {pick(VERBS)} to the {pick(NOUNS)}."
        for _ in range(sentences)
    )


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(count: int, seed: int = 0) -> list[dict[str, str]]:
    dice = random.Random(seed)
    return [{"id": f"d{n}", "text": article(dice)} for n in range(count)]


def project(tmp_path: Path, data: list[dict[str, str]] | None = None) -> BuildConfig:
    write_rows(tmp_path / "p" / "raw" / "a.jsonl", rows(120) if data is None else data)
    return BuildConfig(project=tmp_path / "p")


def load(config: BuildConfig) -> tuple[list[Document], list[Document], list[Document], dict]:  # type: ignore[type-arg]
    folder = config.project / "01-data" / config.name
    kept, held, dropped = (list(read_documents(folder / f"{n}.parquet")) for n in ("documents", "heldout", "dropped"))
    return kept, held, dropped, json.loads((folder / "stats.json").read_text())


def test_every_document_ends_in_one_place_and_the_sums_agree(tmp_path: Path) -> None:
    data = rows(120)
    data += [
        {"id": "copy", "text": data[3]["text"]},
        {"id": "near", "text": data[4]["text"] + " The end of the story."},
        {
            "id": "german",
            "text": "Der Hund spielt im Garten, und die Kinder lachen über das schöne Wetter am Meer. " * 3,
        },
        {"id": "wrong", "text": article(random.Random(9)) + " 1 + 1 = 3. 2 + 2 = 5. 4 plus 4 is 9."},
        {"id": "short", "text": "Log in"},
    ]
    config = project(tmp_path, data)
    build(config)
    kept, held, dropped, found = load(config)
    assert len(kept) + len(held) + len(dropped) == len(data) == found["raw_documents"]
    assert len({d.id for d in kept + held + dropped}) == len(data)
    reasons = {d.id.rpartition(":")[2]: (d.meta["stage"], d.meta["rule"]) for d in dropped}
    assert reasons["copy"][1].startswith("exact")
    assert reasons["d4"][1].startswith("near")  # of two that are nearly the same the longer one stays
    assert reasons["german"] == ("language", "is_de")
    assert reasons["wrong"] == ("quality", "false_arithmetic")
    assert reasons["short"] == ("quality", "gopher_min_words")
    assert next(d.meta["partner"] for d in dropped if d.id.endswith("copy")) == "a.jsonl:d3"
    assert found["kept"] == len(kept) == found["sources"]["a.jsonl"]["documents"]
    assert found["kept_bytes"] == sum(len(d.text.encode()) for d in kept)
    assert found["heldout"] == len(held)
    assert sum(row["dropped"] for row in found["funnel"]) == len(dropped)
    assert not (config.project / "01-data" / "main" / "parts").exists()


def test_a_rerun_does_nothing_and_another_config_begins_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = project(tmp_path)
    build(config)
    capsys.readouterr()
    build(config)
    assert "nothing to do" in capsys.readouterr().out
    build(replace(config, heldout=0.2))
    assert "made anew" in capsys.readouterr().out


def test_without_a_raw_folder_it_reads_what_it_read_last(tmp_path: Path) -> None:
    elsewhere = write_rows(tmp_path / "elsewhere.jsonl", rows(60))
    first = build(BuildConfig(project=tmp_path / "p", input=(elsewhere,), processes=1))
    started = first.info["started"]
    assert build(BuildConfig(project=tmp_path / "p", processes=1)).info["started"] == started  # nothing has changed
    again = BuildConfig(project=tmp_path / "p", heldout=0.2, processes=1)
    assert f"read {elsewhere}" in again.describe()
    assert build(again).results["raw_documents"] == 60
    write_rows(tmp_path / "p" / "raw" / "own.jsonl", rows(30, seed=1))
    assert build(again).results["raw_documents"] == 30


def test_the_split_depends_on_the_text_alone(tmp_path: Path) -> None:
    config = project(tmp_path, rows(400))
    build(config)
    held = {d.text for d in load(config)[1]}
    assert 8 <= len(held) <= 40  # 5% of 400
    assert all((unit_hash(d.text) < 0.05) == (d.text in held) for d in load(config)[0] + load(config)[1])
    data = rows(400)
    random.Random(1).shuffle(data)
    other = project(tmp_path / "other", data[:300])
    build(other)
    assert {d.text for d in load(other)[1]} == held & {row["text"] for row in data[:300]}


def test_nothing_like_a_held_out_document_is_trained_on(tmp_path: Path) -> None:
    data = rows(200)
    data += [{"id": f"near{n}", "text": row["text"] + f" And so on, {n}."} for n, row in enumerate(data)]
    data += [{"id": f"same{n}", "text": row["text"]} for n, row in enumerate(data[:200])]
    for mode in ("all", "none"):
        config = replace(project(tmp_path, data), filters=mode, name=mode)  # type: ignore[arg-type]
        build(config)
        kept, held, dropped, _ = load(config)
        starts = {d.text[:300] for d in held}
        assert len(held) > 5
        assert not any(d.text[:300] in starts for d in kept)
        assert any(d.meta["rule"].endswith("_of_heldout") for d in dropped)
    assert len(kept) > 400  # raw mode keeps the duplicates among the rest


def test_raw_mode_keeps_the_decoded_text_and_the_same_held_out_documents(tmp_path: Path) -> None:
    page = "<html><head><title>{0}</title></head><body><nav>Home News Shop</nav><main><h1>{0}</h1><p>{1}</p></main></body></html>"
    raw = tmp_path / "p" / "raw"
    write_rows(raw / "a.jsonl", [*rows(80), {"id": "spam", "text": "buy pills now " * 30}])
    for n, row in enumerate(rows(30, seed=5)):
        (raw / f"{n}.html").write_text(page.format(f"Page {n}", row["text"]))
    clean, naive = BuildConfig(project=tmp_path / "p"), BuildConfig(project=tmp_path / "p", name="raw", filters="none")
    build(clean)
    build(naive)
    assert [(d.id, d.text) for d in load(clean)[1]] == [(d.id, d.text) for d in load(naive)[1]]
    pages = [d.text for d in load(naive)[0] if d.id.endswith(".html")]
    assert all("Home News Shop" in text for text in pages)
    assert not any("Home News Shop" in d.text for d in load(clean)[0])
    assert "a.jsonl:spam" in {d.id for d in load(naive)[0]}
    assert "a.jsonl:spam" not in {d.id for d in load(clean)[0]}


def test_a_corpus_of_one_text_holds_out_its_end(tmp_path: Path) -> None:
    text = "\n\n".join(article(random.Random(n)) for n in range(20))
    (tmp_path / "one.txt").write_text(text)
    config = BuildConfig(
        project=tmp_path / "p", input=(tmp_path / "one.txt",), repetition=RepetitionConfig(enabled=False)
    )
    build(config)
    kept, held, _, _ = load(config)
    assert len(kept) == len(held) == 1
    assert 0.03 < len(held[0].text) / len(kept[0].text + held[0].text) < 0.07
    assert kept[0].id == held[0].id


def test_a_small_corpus_of_some_texts_holds_one_out(tmp_path: Path) -> None:
    config = project(tmp_path, [row for row in rows(8) if unit_hash(row["text"]) >= 0.05])
    build(config)
    assert len(load(config)[1]) == 1


def test_the_tail_of_a_text_verbatim(data_dir: Path, tmp_path: Path) -> None:
    path = data_dir / "text" / "tinyshakespeare.txt"
    config = BuildConfig(project=tmp_path / "p", input=(path,), filters="none", split="tail", heldout=0.1)
    build(config)
    kept, held, _, _ = load(config)
    text = path.read_text(encoding="utf-8")
    assert (kept[0].text, held[0].text) == (text[: int(len(text) * 0.9)], text[int(len(text) * 0.9) :])


def test_mixing_repeats_and_thins_sources(tmp_path: Path) -> None:
    raw = tmp_path / "p" / "raw"
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        write_rows(raw / f"{name}.jsonl", rows(100, seed))
    config = BuildConfig(project=tmp_path / "p", mix=("a.jsonl=2.5", "b.jsonl=0.2"))
    build(config)
    kept, _, dropped, found = load(config)
    counts = {name: row["documents"] for name, row in found["sources"].items()}
    assert 210 < counts["a.jsonl"] < 270
    assert 8 < counts["b.jsonl"] < 35
    assert 85 < counts["c.jsonl"] <= 100
    assert sum(d.meta["stage"] == "mix" for d in dropped) > 60
    assert len({d.id for d in kept}) == len(kept)
    assert copies("x", 0.0) == 0
    assert copies("x", 3.0) == 3
    for bad in ("a", "a=x", "=2", "a=-1", "a=100"):
        with pytest.raises(ConfigError, match="SOURCE=WEIGHT"):
            BuildConfig(mix=(bad,)).validate()


def test_evaluation_problems_stay_out_of_the_training_text(tmp_path: Path) -> None:
    config = project(tmp_path)
    asked = rows(120)[7]["text"]
    write_rows(
        config.project / "tasks" / "problems-test.jsonl",
        [{"id": "q", "skill": "s", "question": asked.partition(".")[0], "answer": "a"}],
    )
    build(config)
    dropped = [d for d in load(config)[2] if d.meta["rule"] == "problem_overlap"]
    assert [d.id for d in dropped] == ["a.jsonl:d7"]
    assert dropped[0].meta["partner"] in " ".join(asked.lower().replace(",", "").split())


def test_site_furniture_is_learnt_from_its_pages(tmp_path: Path, warc: Callable[..., bytes]) -> None:
    page = (
        "<html><head><title>{0}</title></head><body><div><p>Small, fast, reliable: the best site of them all.</p><h2>{0}</h2><p>{1}</p>"
        "<h3>See also</h3><p>{2}</p><p>Come back tomorrow for more of our fine stories.</p></div></body></html>"
    )
    pages = []
    for n, row in enumerate(rows(40, seed=3)):
        body = page.format(f"Story {n}", row["text"], article(random.Random(n + 1000), 3)).encode()
        pages.append((f"https://stories.example/{n}", "text/html", body))
    raw = tmp_path / "p" / "raw"
    raw.mkdir(parents=True)
    (raw / "a.warc.gz").write_bytes(warc(*pages))
    config = BuildConfig(project=tmp_path / "p")
    build(config)
    kept = load(config)[0]
    assert len(kept) > 30
    assert all("See also" in d.text and d.meta["furniture_lines"] == 2 for d in kept)
    assert not any("fast, reliable" in d.text or "fine stories" in d.text for d in kept)


@pytest.mark.parametrize("processes", [3])
def test_the_bytes_are_the_same_whatever_the_number_of_processes(tmp_path: Path, processes: int) -> None:
    data = rows(900)
    outputs = []
    for number in (1, processes):
        config = replace(project(tmp_path / str(number), data), processes=number)
        build(config)
        folder = config.project / "01-data" / "main"
        outputs.append(
            [
                (folder / f).read_bytes()
                for f in ("documents.parquet", "heldout.parquet", "dropped.parquet", "stats.json")
            ]
        )
    assert outputs[0] == outputs[1]


def test_a_killed_build_continues_and_ends_the_same(tmp_path: Path) -> None:
    data = rows(1300)
    whole, killed = project(tmp_path / "whole", data), project(tmp_path / "killed", data)
    build(whole)
    command = [sys.executable, "-m", "groundup", "data", "build", str(killed.project)]
    parts = killed.project / "01-data" / "main" / "parts"
    for wanted in ("extracted-000000-000002*", "judged-000000-000001*"):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 60
        while not list(parts.glob(wanted)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    left = {p: p.stat().st_mtime_ns for p in parts.glob("extracted-*.parquet")}
    assert left
    run_cli(command[3:])
    for name in ("documents.parquet", "heldout.parquet", "dropped.parquet", "stats.json"):
        assert (killed.project / "01-data/main" / name).read_bytes() == (
            whole.project / "01-data/main" / name
        ).read_bytes()


def test_a_text_too_long_to_be_judged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.data.stages.LONGEST_TEXT", 5000)
    config = project(tmp_path, [*rows(30), {"id": "long", "text": article(random.Random(7), 60)}])
    build(config)
    assert [d.id for d in load(config)[2] if d.meta["rule"] == "too_long"] == ["a.jsonl:long"]


def test_why_and_stats_tell_the_story(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = rows(60)
    data += [
        {"id": "copy", "text": data[3]["text"], "url": "https://a.example/copy"},
        {"id": "tiny", "text": "Too short."},
    ]
    config = project(tmp_path, data)
    run = build(config)
    places = {document.id: place for name in ("a.jsonl:d3", "a.jsonl:tiny") for place, document in find(run, name)}
    assert places["a.jsonl:tiny"] == "dropped"
    why(WhyConfig(config.project, "https://a.example/copy"))
    shown = capsys.readouterr().out
    assert "dropped by the stage 'duplicates'" in shown
    assert "kept instead: a.jsonl:d3" in shown
    assert "measured 2, threshold 10" in "\n".join(explain("dropped", next(d for _, d in find(run, "a.jsonl:tiny"))))
    assert run_cli(["data", "why", str(config.project), "a.jsonl:d99999"]) == 2
    assert "did you mean a.jsonl:d" in capsys.readouterr().err
    stats(StatsConfig(config.project))
    shown = capsys.readouterr().out
    for word in ("gopher_min_words", "exact", "held out", "kept", "a.jsonl"):
        assert word in shown
    assert run_cli(["data", "stats", str(tmp_path / "nothing")]) == 2
    assert "run `groundup data build" in capsys.readouterr().err


def test_every_dropping_rule_is_explained(tmp_path: Path) -> None:
    for rule in ("is_de", "top_3_gram", "repeated_7_grams", "shouting", "near_of_heldout", "problem_overlap"):
        document = Document(
            "x", "text", "s", {"stage": "quality", "rule": rule, "value": 0.5, "threshold": 0.3, "partner": "y"}
        )
        lines = explain("dropped", document)
        assert any(line.startswith("  (") for line in lines), rule
        assert any("measured 0.5, threshold 0.3" in line for line in lines)


def test_configs_are_checked() -> None:
    for bad in (
        BuildConfig(heldout=0.7),
        BuildConfig(heldout=-0.1),
        BuildConfig(processes=-1),
        BuildConfig(dedup=DedupConfig(bands=0)),
    ):
        with pytest.raises(ConfigError):
            bad.validate()
    assert any("hold out 5%" in line for line in BuildConfig().describe())


def test_a_misspelt_threshold_is_pointed_out(cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = cli("data", "build", "--gopher.min-word", "5", check=False)
    assert done.returncode == 2
    assert "did you mean --gopher.min-words" in done.stderr
