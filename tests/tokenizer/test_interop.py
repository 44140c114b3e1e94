"""Vocabularies that others made: equal ids from Hugging Face's and tiktoken's files, or one line that says why not."""

import base64
import itertools
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from groundup.base.errors import TokenizerError
from groundup.base.records import Message
from groundup.tokenizer.chat import end_id, render
from groundup.tokenizer.encode import StreamDecoder, Tokenizer
from groundup.tokenizer.foreign import Foreign, alphabet, assemble
from groundup.tokenizer.io import (
    from_huggingface,
    from_ranks,
    huggingface_files,
    load,
    read_ranks,
    save,
    to_huggingface,
    to_ranks,
    write_ranks,
)  # fmt: skip
from groundup.tokenizer.pattern import PATTERNS

TEXT = "Don't panic: 42 is the answer to 12345.\n\n\tIt's HERE’s camelCase, naïve 漢字 🙂🙂 é e\u0301  \r\n x=[{}]; "
LLAMA, QWEN = PATTERNS["cl100k"], PATTERNS["qwen2"]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def corpus(data_dir: Path) -> str:
    return (data_dir / "text" / "wikitext2-valid.txt").read_text(encoding="utf-8")[:200_000]


def theirs(text: str, regex: str | None, specials: list[str], normal: str | None = None, late: int = 0) -> Json:
    """A tokenizer.json that `tokenizers` trained: specials first, as its trainer likes it, or `late` of them behind."""
    from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Theirs

    tokenizer = Theirs(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if regex is not None:
        first = pre_tokenizers.Split(Regex(regex), behavior="isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [first, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    tokenizer.decoder = decoders.ByteLevel()
    if normal is not None:
        tokenizer.normalizer = getattr(normalizers, normal)()
    early = specials[: len(specials) - late]
    trainer = trainers.BpeTrainer(
        vocab_size=1200, special_tokens=early, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in specials])
    return json.loads(tokenizer.to_str())


def with_digits(text: str, individual: bool) -> Json:
    """As StarCoder and SmolLM split: digits are cut out before GPT-2's pattern."""
    content = theirs(text, None, ["<|endoftext|>"])
    digits = {"type": "Digits", "individual_digits": individual}
    return content | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, content["pre_tokenizer"]]}}


def strings(merges: list[Any]) -> list[str]:
    return [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]


def random_text(seed: int, length: int = 3000) -> str:
    draw = random.Random(seed)
    kinds = [
        (32, 127),
        (32, 127),
        (9, 14),
        (0xA0, 0x250),
        (0x300, 0x370),
        (0x400, 0x500),
        (0x4E00, 0x5000),
        (0x1F600, 0x1F640),
    ]
    return "".join(chr(draw.randrange(*draw.choice(kinds))) for _ in range(length))


def equal(ours: Tokenizer, content: Json, texts: list[str]) -> None:
    """Checks ids, text and stream against `tokenizers`."""
    from tokenizers import Tokenizer as Theirs

    tokenizer = Theirs.from_str(json.dumps(content))
    assert ours.vocab_size == max(tokenizer.get_vocab().values()) + 1
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert ours.encode(text, "all") == ids
        assert ours.decode(ids) == tokenizer.decode(ids, skip_special_tokens=False)
        stream = StreamDecoder(ours)
        assert "".join(map(stream.push, ids)) + stream.flush() == ours.decode(ids)


def compiled(ours: Tokenizer, folder: Path, texts: list[str]) -> None:
    """Checks that encoding files, which is compiled, gives the ids that encoding a text does."""
    for i, text in enumerate(texts):
        (folder / f"text-{i}.txt").write_text(text, encoding="utf-8", newline="")
        files = [ids.tolist() for ids in ours.encode_files([folder / f"text-{i}.txt"])]
        assert [token for ids in files for token in ids] == ours.encode_ordinary(text)


@pytest.mark.parametrize("regex", [None, LLAMA, QWEN])
@pytest.mark.parametrize(
    ("specials", "late"), [(["<|endoftext|>"], 0), (["<s>", "<pad>", "<|im_end|>"], 1), (["<|end|>"], 1)]
)
def test_what_tokenizers_trained_gives_equal_ids(
    corpus: str, tmp_path: Path, regex: str | None, specials: list[str], late: int
) -> None:
    content = theirs(corpus, regex, specials, late=late)
    texts = [TEXT, corpus[:20_000], random_text(1), f"a{specials[0]}b {specials[-1]}", "", "a" * 3000]
    ours = from_huggingface(content)
    equal(ours, content, texts)
    as_strings = content | {"model": content["model"] | {"merges": strings(content["model"]["merges"])}}
    assert from_huggingface(as_strings).fingerprint == ours.fingerprint
    save(ours, tmp_path)
    assert load(tmp_path).fingerprint == ours.fingerprint
    equal(load(tmp_path), to_huggingface(ours), texts)
    compiled(ours, tmp_path, texts)


@pytest.mark.parametrize("individual", [True, False])
def test_digits_are_cut_out_as_star_coder_does(corpus: str, tmp_path: Path, individual: bool) -> None:
    content = with_digits(corpus, individual)
    texts = [TEXT, "a  5 b\n\n 77  \t8's 9'll ½ x²", random_text(3), corpus[:10_000]]
    ours = from_huggingface(content)
    equal(ours, content, texts)
    save(ours, tmp_path)
    equal(load(tmp_path), to_huggingface(ours), texts)


def test_an_expression_of_their_own_is_taken(corpus: str) -> None:
    content = theirs(corpus, r"\p{L}+|\d| ?[^\s\p{L}\d]+|\s", ["<|endoftext|>"])
    equal(from_huggingface(content), content, [TEXT, corpus[:10_000]])
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "("
    with pytest.raises(TokenizerError, match="not a regular expression"):
        from_huggingface(content)


def test_ours_come_back_from_their_format_as_ours(corpus: str) -> None:
    from groundup.tokenizer.train import train

    tokenizer = train([corpus], 600)
    again = from_huggingface(to_huggingface(tokenizer), huggingface_files(tokenizer)["tokenizer_config.json"])
    assert type(again) is Tokenizer
    assert again.fingerprint == tokenizer.fingerprint
    assert again.chat_template == tokenizer.chat_template
    assert from_ranks(to_ranks(tokenizer), tokenizer.specials, "qwen2").fingerprint == tokenizer.fingerprint


def test_gpt2_is_ours_but_for_the_order_of_bytes(data_dir: Path) -> None:
    from groundup.tokenizer.io import read_merges

    gpt2 = read_merges(data_dir / "tokenizer" / "gpt2-vocab.bpe")
    content = to_huggingface(gpt2)
    assert content["model"]["vocab"] | {"<|endoftext|>": 50256} == json.loads(
        (data_dir / "tokenizer" / "gpt2-encoder.json").read_text(encoding="utf-8")
    )
    assert from_huggingface(content).fingerprint == gpt2.fingerprint


def test_a_folder_of_the_older_form(corpus: str, tmp_path: Path, data_dir: Path) -> None:
    """vocab.json and merges.txt, as GPT-2 and the first Qwen 2 came."""
    gpt2 = data_dir / "tokenizer"
    (tmp_path / "vocab.json").write_bytes((gpt2 / "gpt2-encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((gpt2 / "gpt2-vocab.bpe").read_bytes())
    ours = load(tmp_path)
    assert type(ours) is Tokenizer
    assert ours.encode("Hello world<|endoftext|>", "all") == [15496, 995, 50256]
    content = theirs(corpus, QWEN, ["<|endoftext|>", "<|im_end|>"], normal="NFC", late=2)
    (tmp_path / "vocab.json").write_text(json.dumps(content["model"]["vocab"]), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(strings(content["model"]["merges"])), encoding="utf-8"
    )
    added = {str(entry["id"]): entry for entry in content["added_tokens"]}
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "added_tokens_decoder": added}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    equal(load(tmp_path), content, [TEXT, corpus[:5000]])
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}', encoding="utf-8")
    with pytest.raises(TokenizerError, match="tokenizer_class is RobertaTokenizer, and there is no"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.model", b"\n\x0e\n\x05<unk>\x15", "a sentencepiece tokenizer"),
        ("vocab.txt", b"[PAD]\n[UNK]\n", "a WordPiece"),
    ],
)
def test_other_kinds_of_file_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(TokenizerError, match=rf"{name}: {message}.*; only byte-level BPE can be read"):
            load(path)


def test_a_normal_form_is_taken_as_qwen_does(corpus: str, tmp_path: Path) -> None:
    content = theirs(corpus, QWEN, ["<|endoftext|>", "<|im_end|>"], normal="NFC", late=2)
    ours = from_huggingface(content, {"eos_token": "<|im_end|>"})
    assert isinstance(ours, Foreign)
    decomposed = unicodedata.normalize("NFD", "naïve café Łódź 한국어 ") * 20
    equal(ours, content, [TEXT, decomposed, corpus[:5000], "e<|im_end|>\u0301"])
    assert ours.decode(ours.encode(decomposed)) == unicodedata.normalize("NFC", decomposed)
    assert to_huggingface(ours)["normalizer"] == {"type": "NFC"}
    compiled(ours, tmp_path, [TEXT, decomposed])


def test_tiktoken_joins_whatever_is_a_token(corpus: str, tmp_path: Path) -> None:
    """Ranks with tokens that no merge reaches, and with one that is made of parts learnt after it, as Llama 3 has."""
    import tiktoken

    from groundup.tokenizer.train import train

    ranks = to_ranks(train([corpus], 900, "cl100k", specials=()))
    for token in (b" unreachable", b"xqz", b"zqx", "漢字".encode(), b"zq", b"xq"):
        ranks[token] = len(ranks)
    ours = from_ranks(ranks, {"<|eot|>": 5000}, "cl100k", begin="<|eot|>", end="<|eot|>")
    encoding = tiktoken.Encoding("r", pat_str=LLAMA or "", mergeable_ranks=ranks, special_tokens={"<|eot|>": 5000})
    texts = [TEXT, corpus[:50_000], random_text(2), "unreachable unreachable unreachables", "xqz zqx xqzqx zqxqz " * 9]
    for text in texts:
        assert ours.encode(text) == encoding.encode_ordinary(text)
    assert ours.encode("a<|eot|>", "all")[-1] == ours.eot == 5000
    assert ours.vocab_size == encoding.n_vocab
    assert ours.decode([4000]) == ""  # a gap between the ids
    write_ranks(ours, tmp_path / "cl100k-ours.tiktoken")
    assert read_ranks(tmp_path / "cl100k-ours.tiktoken") == ranks
    assert load(tmp_path / "cl100k-ours.tiktoken").encode(texts[-1]) == ours.encode(texts[-1])
    equal(ours, to_huggingface(ours), texts)
    compiled(ours, tmp_path, texts)


def test_llama_3_keeps_every_merge_that_spells_a_token(corpus: str) -> None:
    """Its tokenizer.json lists all pairs that make a token, and looks whole words up before merging."""
    from groundup.tokenizer.train import train

    ranks = to_ranks(train([corpus], 900, "cl100k", specials=()))
    for token in (b" unreachable", b"xqz", b"zqx", b"zq", b"xq"):
        ranks[token] = len(ranks)
    letters = alphabet()
    name = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [
        [name[t[:i]], name[t[i:]]]
        for t in ranks
        for i in sorted(range(1, len(t)), key=lambda i, t=t: (ranks.get(t[:i], 0), ranks.get(t[i:], 0)))
        if t[:i] in ranks and t[i:] in ranks
    ]
    content = to_huggingface(from_ranks(ranks, {"<|begin_of_text|>": len(ranks)}, "cl100k"))
    content["model"]["merges"] = merges
    assert len(merges) > len(ranks) - 256
    for whole in (True, False):
        content["model"]["ignore_merges"] = whole
        ours = from_huggingface(content)
        equal(
            ours,
            content,
            [TEXT, corpus[:20_000], "unreachable unreachable", "xqz zqx xqzqx zqxqz " * 9, "<|begin_of_text|>a"],
        )
        assert ours.eot == len(ranks)


def test_transformers_loads_ours_with_its_roles_and_its_template(corpus: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    content = theirs(corpus, QWEN, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], normal="NFC", late=3)
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    ours = from_huggingface(content, {"eos_token": {"content": "<|im_end|>"}, "chat_template": template})
    for file, value in huggingface_files(ours, end="<|im_end|>").items():
        (tmp_path / file).write_text(json.dumps(value), encoding="utf-8")
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert (auto.bos_token, auto.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert (auto.bos_token_id, auto.eos_token_id) == (ours.eot, end_id(ours))
    rows = [{"role": "user", "content": "Hi <|there|>"}, {"role": "assistant", "content": "café"}]
    ids = auto.apply_chat_template(rows, return_dict=True)["input_ids"]
    assert render([Message(**row) for row in rows], ours).tokens == ids
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text(template, encoding="utf-8")
    again = load(tmp_path)
    assert (again.fingerprint, again.chat_template) == (ours.fingerprint, template)


def with_(content: Json, path: str, value: Any) -> Json:
    """Returns a copy with one entry changed, by its dotted path."""
    key, _, rest = path.partition(".")
    return content | {key: with_(content.get(key) or {}, rest, value) if rest else value}


FLAGS = {"id": 1200, "content": "<mask>", "single_word": False, "lstrip": True, "rstrip": False, "special": True}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.type", "WordPiece", "a WordPiece tokenizer; only byte-level BPE"),
        ("model", {"type": "Unigram", "vocab": [["a", -1.0]]}, "a Unigram tokenizer"),
        ("model.byte_fallback", True, "a sentencepiece tokenizer"),
        ("model.end_of_word_suffix", "</w>", "end_of_word_suffix is '</w>'"),
        ("model.dropout", 0.1, "dropout is 0.1"),
        ("model.vocab", {"a": 0, "b": 1}, "254 of the 256 bytes have no id"),
        ("model.vocab", {"▁the": 0}, "isn't in GPT-2's alphabet of bytes"),
        ("model.vocab", {"a": 0, "b": 0}, "two tokens of the vocabulary have the same id"),
        ("model.merges", [["a"]], "the vocabulary or the merges are corrupt"),
        ("model.merges", [["q", "qqq"]], "makes b'qqqq', which has no id"),
        ("pre_tokenizer", {"type": "Metaspace"}, "text is split by Metaspace"),
        ("pre_tokenizer", None, "text is split by None"),
        ("pre_tokenizer.add_prefix_space", True, "puts a space before the text"),
        ("normalizer", {"type": "Lowercase"}, "changes the text by Lowercase"),
        ("added_tokens", [FLAGS], "looks at what stands beside it"),
        ("added_tokens", [FLAGS | {"lstrip": False, "special": False, "content": "  "}], "is ordinary text"),
        ("added_tokens", [FLAGS | {"lstrip": False, "id": 5}], "id 5 is given to two tokens"),
    ],
)
def test_what_we_cannot_follow_is_refused_by_name(
    corpus: str, tmp_path: Path, path: str, value: Any, message: str
) -> None:
    content = with_(theirs(corpus[:5000], None, ["<s>"]), path, value)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(TokenizerError, match=message) as caught:
        load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ["!!!! 3", "IQ== x", "IQ==", "IQ== 1 2"])
def test_a_damaged_file_of_ranks_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "cl100k_base.tiktoken"
    path.write_text(f"{base64.b64encode(b'a').decode()} 0\n{line}\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"cl100k_base\.tiktoken, line 2: expected a token in base64"):
        load(path)


def test_a_file_of_ranks_must_say_which_pattern_it_belongs_to(tmp_path: Path) -> None:
    path = tmp_path / "mine.tiktoken"
    path.write_text("IQ== 0\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match="don't say where words end"):
        load(path)
    path = path.rename(tmp_path / "gpt2.tiktoken")
    with pytest.raises(TokenizerError, match="255 of the 256 bytes have no id"):
        load(path)


def test_merges_that_would_overlap_in_another_order_are_refused() -> None:
    tokens = {bytes([byte]): byte for byte in range(256)} | {b"aba": 256, b"ab": 257}
    with pytest.raises(TokenizerError, match="overlap in an order that we can't follow"):
        assemble(tokens, None, {}, "gpt2")


def test_a_merge_of_what_no_merge_makes_never_happens() -> None:
    tokens = {bytes([byte]): byte for byte in range(256)} | {b"xyz": 256, b"xy": 257}
    ours = assemble(tokens, [(b"xy", b"z")], {}, "gpt2")
    assert (ours.encode("xyz"), ours.decode([256]), ours.merges) == ([120, 121, 122], "xyz", [])


def hostile(seed: int) -> tuple[dict[bytes, int], list[str]]:
    """A vocabulary of random strings over few letters in random order, and texts of those letters."""
    draw = random.Random(seed)
    letters = draw.choice(["ab", "abc"])
    pool = ["".join(word) for size in range(2, 6) for word in itertools.product(letters, repeat=size)]
    chosen = draw.sample(pool, draw.randrange(2, 12))
    if draw.random() < 0.5:
        chosen.sort(key=len)
    ranks = {bytes([byte]): byte for byte in range(256)} | {token.encode(): 256 + i for i, token in enumerate(chosen)}
    return ranks, ["".join(draw.choice(letters) for _ in range(draw.randrange(1, 25))) for _ in range(20)]


def test_vocabularies_in_any_order_are_followed_or_refused() -> None:
    """tiktoken's rule and Hugging Face's, with all merges, with one a token, and shuffled; never other ids."""
    import tiktoken
    from tokenizers import Tokenizer as Theirs

    letters, base, refused = alphabet(), to_huggingface(Tokenizer([], (), "whitespace")), 0
    for seed in range(150):
        ranks, texts = hostile(seed)
        name = {token: "".join(letters[byte] for byte in token) for token in ranks}
        pairs = [
            [name[t[:i]], name[t[i:]]] for t in ranks for i in range(1, len(t)) if t[:i] in ranks and t[i:] in ranks
        ]
        if seed % 3 == 1:
            pairs = list({left + right: [left, right] for left, right in pairs}.values())
        elif seed % 3 == 2:
            random.Random(seed).shuffle(pairs)
        content = with_(base, "model.vocab", {name[token]: i for token, i in ranks.items()})
        content = with_(with_(content, "model.merges", pairs), "model.ignore_merges", bool(seed % 2))
        encoding = tiktoken.Encoding(
            "r", pat_str=PATTERNS["whitespace"] or "", mergeable_ranks=ranks, special_tokens={}
        )
        tokenizer = Theirs.from_str(json.dumps(content))
        for make, expected in (
            (lambda ranks=ranks: from_ranks(ranks, {}, "whitespace"), encoding.encode_ordinary),
            (lambda content=content: from_huggingface(content), lambda text, them=tokenizer: them.encode(text).ids),
        ):
            try:
                ours = make()
            except TokenizerError:
                refused += 1
                continue
            assert [ours.encode(text) for text in texts] == [expected(text) for text in texts]
    assert refused < 30


def test_what_tiktoken_would_join_otherwise_is_not_written_as_ranks() -> None:
    tokens = {bytes([byte]): byte for byte in range(256)} | {b"ab": 257, b"cd": 256}
    with pytest.raises(TokenizerError, match="joins in the order of the ids"):
        to_ranks(assemble(tokens, [(b"a", b"b"), (b"c", b"d")], {}, "gpt2"))
    with pytest.raises(TokenizerError, match="doesn't bring text into the form NFC"):
        to_ranks(assemble(tokens, None, {}, "gpt2", normal="NFC"))
