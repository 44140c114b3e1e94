"""A vocabulary laid open: what is counted adds up, odd tokens are named, trees are the merges, the page holds it all."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from groundup.base.errors import TokenizerError
from groundup.base.files import write_json
from groundup.base.records import Document, write_documents
from groundup.cli import main
from groundup.tokenizer.compare import differences, shared
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.foreign import assemble
from groundup.tokenizer.io import from_ranks, load, save, to_huggingface, to_ranks
from groundup.tokenizer.measure import measure, samples, script
from groundup.tokenizer.page import render_page
from groundup.tokenizer.show import name, steps, suspicious, tree
from groundup.tokenizer.train import train

STORY = "The cat sat on the mat, and the dog sat on the log. Then the cat ran to the dog. " * 4
TEXTS = [("book", STORY), ("web", "the cat 漢字 1234\n\n it's naïve"), ("web", "Привет, the dog!")]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train([STORY], 280)


@pytest.fixture
def project(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    """A project with documents of two sources and a tokenizer."""
    folder = tmp_path / "my-llm"
    data = folder / "01-data" / "main"
    data.mkdir(parents=True)
    write_documents(
        data / "documents.parquet", [Document(str(i), text, source) for i, (source, text) in enumerate(TEXTS)]
    )
    write_json(data / "run.json", {"status": "done"})
    (folder / "02-tokenizer" / "main").mkdir(parents=True)
    save(tokenizer, folder / "02-tokenizer" / "main" / "tokenizer.json")
    return folder


def test_what_is_counted_adds_up(tokenizer: Tokenizer) -> None:
    usage = measure(tokenizer, TEXTS)
    ids = {
        source: [i for s, text in TEXTS if s == source for i in tokenizer.encode(text)] for source in ("book", "web")
    }
    assert {source: tally.tokens for source, tally in usage.sources.items()} == {s: len(i) for s, i in ids.items()}
    assert usage.used == Counter(ids["book"] + ids["web"])
    assert usage.total.bytes == sum(len(text.encode()) for _, text in TEXTS)
    for rows in (usage.sources, usage.scripts):
        for key in ("bytes", "tokens", "words", "whole"):
            assert sum(getattr(tally, key) for tally in rows.values()) == getattr(usage.total, key)
    assert {"Latin", "Han", "Cyrillic", "digits", "signs", "white space"} == set(usage.scripts)


def test_a_vocabulary_of_bytes_is_measured_by_words() -> None:
    usage = measure(Tokenizer([], (), "bytes"), [("a", "two words")])
    assert (usage.total.words, usage.total.tokens, usage.total.bytes_per_token) == (2, 9, 1.0)


def test_text_is_counted_in_the_form_that_is_encoded() -> None:
    tokens = {bytes([byte]): byte for byte in range(256)} | {"é".encode(): 256}
    usage = measure(assemble(tokens, None, {}, "gpt2", normal="NFC"), [("a", "e\u0301")])
    assert usage.used == Counter([256])


def test_a_sample_takes_its_share_of_each_source(project: Path, tmp_path: Path) -> None:
    def shares(*paths: Path, limit: int) -> dict[str, int]:
        taken: Counter[str] = Counter()
        for source, text in samples(paths, project, limit=limit):
            taken[source] += len(text)
        return dict(taken)

    whole = {"book": len(STORY), "web": len(TEXTS[1][1]) + len(TEXTS[2][1])}
    assert shares(limit=10_000) == whole
    assert shares(limit=30) == {"book": 30, "web": 30}
    (tmp_path / "a.txt").write_text("a" * 50, encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "bbb"}\n{"text": "cc"}\n', encoding="utf-8")
    assert shares(tmp_path / "a.txt", tmp_path / "b.jsonl", limit=4) == {"a.txt": 4, "b.jsonl": 4}


@pytest.mark.parametrize(
    ("word", "expected"),
    [(" the", "Latin"), ("'é", "Latin"), ("漢", "Han"), ("ひら", "Hiragana"), ("한", "Hangul"), (" яд", "Cyrillic"), ("ᚠ", "other letters"),
     ("42", "digits"), (" ½", "signs"), ("!?", "signs"), ("\n ", "white space"), ("🙂", "signs")],
)  # fmt: skip
def test_a_words_script(word: str, expected: str) -> None:
    assert script(word) == expected


def test_tokens_are_printed_so_that_they_can_be_told_apart() -> None:
    doubled = [(32, 32), *((259 + k, 259 + k) for k in range(3))]
    tokenizer = Tokenizer([(0xE6, 0xBC), (10, 9), (32, 97), *doubled])
    assert [name(tokenizer, i) for i in (261, 262, 256, 257, 258, 65, 0)] == [
        "'        '",
        "' ' × 16",
        "'\\xe6\\xbc'",
        "'\\n\\t'",
        "' a'",
        "'A'",
        "'\\u0000'",
    ]


def test_a_tree_is_the_merges_down_to_bytes(tokenizer: Tokenizer) -> None:
    token = tokenizer.encode(" the")[0]
    lines = tree(tokenizer, token)
    assert lines[0].startswith("' the'  id ")
    leaves = [line for line in lines if line.endswith("byte")]
    assert "".join(re.findall(r"'(.)'", " ".join(leaves))) == " the"
    assert len(lines) == 2 * len(leaves) - 1
    with pytest.raises(TokenizerError, match="out of range"):
        tree(tokenizer, tokenizer.vocab_size)


def test_steps_are_what_the_used_tokens_are_made_of() -> None:
    tokenizer = Tokenizer([(97, 98), (256, 99), (120, 121)])
    assert steps(tokenizer, {257}) == {257, 256, 99, 97, 98}


def test_suspicious_tokens_are_found_where_they_were_planted() -> None:
    """Each kind once; the rest of the vocabulary raises no alarm."""
    tokens = [b"th", b"the", b"zq", b"zqj", b"a\x00", b"  ", b"    ", b" " * 8, b" " * 16, b"\xe6\xbc", b"1a"]
    ranks = {bytes([byte]): byte for byte in range(256)} | {token: 256 + i for i, token in enumerate(tokens)}
    tokenizer = from_ranks(ranks, {}, "gpt2")
    found = suspicious(tokenizer, measure(tokenizer, [("a", "the the " * 2000 + " " * 40)]))
    named = {reason: [tokenizer.token_bytes(i) for i in ids] for reason, ids in found.items()}
    assert named == {
        "no text gives it": [b"a\x00", b"1a"], "never met, nor a step to what was": [b"zq", b"zqj"],
        "half a character, never met": [b"\xe6\xbc"], "odd characters": [b"a\x00"], "one character 16 times or more": [b" " * 16],
    }  # fmt: skip
    little = suspicious(tokenizer, measure(tokenizer, [("a", "the")]))
    assert "never met, nor a step to what was" not in little


def test_two_vocabularies_share_what_they_share(tokenizer: Tokenizer) -> None:
    other = Tokenizer(tokenizer.merges[:10])
    assert shared(tokenizer, other) == (len(tokenizer.merges) - 10, 266, 0)
    usage = measure(tokenizer, TEXTS)
    dearer_for_ours, dearer_for_other = differences(tokenizer, other, usage, 5)
    assert dearer_for_ours == []
    gains = [usage.words[w] * (len(other.encode(w)) - len(tokenizer.encode(w))) for w in dearer_for_other]
    assert gains == sorted(gains, reverse=True)
    assert gains[-1] > 0


def test_the_page_holds_the_text_and_what_its_script_needs(tokenizer: Tokenizer) -> None:
    nasty = [("<b>x</b>", "</script><script>alert(1)</script> & the cat\n\t漢")]
    foreign = from_ranks(to_ranks(tokenizer) | {b" unreachable": 5000}, {"<|e|>": 6000}, "qwen2")
    page = render_page(
        {"ours": (tokenizer, measure(tokenizer, nasty)), "theirs": (foreign, measure(foreign, nasty))}, nasty
    )
    assert "alert(1)</script>" not in page
    assert page.count("<script") == 2
    assert "http" not in page
    embedded = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    assert embedded[0]["merges"] == " ".join(f"{a} {b}" for a, b in tokenizer.merges)
    assert embedded[1]["whole"] == {" unreachable": 5000}
    boxes = re.findall(r'<div class="tokens" data-v="(\d)">(.*?)</div>', page, re.DOTALL)
    for number, ours in enumerate((tokenizer, foreign)):
        shown = [box for v, box in boxes if v == str(number) and "data-i" in box]
        assert [int(i) for i in re.findall(r'data-i="(\d+)"', shown[0])] == ours.encode(nasty[0][1])


def test_show_as_typed(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert main(["tokenizer", "show", str(project), "--html", str(page)]) == 0
    out = capfd.readouterr().out
    assert "280 ids (256 bytes, 19 merges, 5 specials); pattern qwen2" in out
    for row in ("book", "web", "all", "Latin", "Han", "longest tokens:", "never used here:", "suspicious tokens"):
        assert re.search(rf"^{row}", out, re.MULTILINE), row
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert main(["tokenizer", "show", str(project), "--token", " the"]) == 0
    assert capfd.readouterr().out.startswith("' the'  id ")
    assert main(["tokenizer", "show", str(project), "--id", "256"]) == 0
    assert "id 256, merge 1" in capfd.readouterr().out


def test_a_file_that_is_not_utf8_can_be_read_with_gaps(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes("the na\u00efve cat".encode("latin-1"))
    words = ["tokenizer", "show", str(project), "--input", str(tmp_path / "latin.txt"), "--invalid", "replace"]
    assert main(words) == 0
    assert re.search(r"^latin\.txt +15 ", capfd.readouterr().out, re.MULTILINE)  # U+FFFD is three bytes


def test_compare_as_typed(project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A project, a tokenizer.json of Hugging Face's form, and tiktoken's ranks; on the project's text, a file, or words."""
    tokenizer = load(project / "02-tokenizer" / "main")
    (tmp_path / "hf.json").write_text(json.dumps(to_huggingface(Tokenizer(tokenizer.merges[:9]))), encoding="utf-8")
    assert (
        main(["tokenizer", "compare", str(project), str(tmp_path / "hf.json"), "--html", str(tmp_path / "p.html")]) == 0
    )
    out = capfd.readouterr().out
    assert "265 in both, 10 only in A, 0 only in B" in out
    assert re.search(r"A needs [\d.]+% fewer tokens for this text", out)
    assert "A needs fewer tokens for, by what it saves" in out
    assert (tmp_path / "p.html").exists()
    assert main(["tokenizer", "compare", str(tmp_path / "hf.json"), str(project), "--text", "the cat"]) == 0
    assert "B needs" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "nowhere"], "no such tokenizer"),
        (["show", "PROJECT", "--id", "99999"], "id 99999 is out of range: this vocabulary has ids 0 to 279"),
        (["show", "PROJECT", "--id", "-1"], "id -1 is out of range"),
        (["show", "PROJECT", "--id", "1", "--token", "a"], "not both"),
        (["show", "PROJECT", "--input", "absent.txt"], "absent.txt: no such file"),
        (["show", "PROJECT", "--top", "0"], "top: 0; at least 1"),
        (["show", "PROJECT", "--sample-mb", "0"], "sample_mb: 0.0 is no length"),
        (["show", "PROJECT", "--data", "other"], "give texts by --input FILE, or --text"),
        (["show", "PROJECT", "--input", "LATIN"], "latin.txt: not UTF-8 at byte 2; --invalid replace or skip"),
        (["show", "PROJECT", "--input", "EMPTY"], "empty.txt: no text in it"),
        (["show", "PROJECT", "--input", "LATIN", "--invalid", "skip"], "latin.txt: no text in it"),
        (["show", "PROJECT", "--invalid", "drop"], "expected strict, replace or skip"),
        (["compare", "PROJECT", "PROJECT"], "is the first one too; give two"),
        (["compare", "PROJECT", "EMPTY"], "not JSON"),
    ],
)
def test_a_mistake_is_one_line(
    project: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    (tmp_path / "latin.txt").write_bytes("na\u00efve".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"")
    known = {"PROJECT": project, "LATIN": tmp_path / "latin.txt", "EMPTY": tmp_path / "empty.txt"}
    assert main(["tokenizer", *(str(known.get(word, word)) for word in words)]) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1
