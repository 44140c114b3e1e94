"""The chat format: what transformers renders, the assistant's words marked, no special token out of anyone's text."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.base.errors import DataError, TokenizerError
from groundup.base.records import Message
from groundup.tokenizer.chat import DEFAULT_SPECIALS, end_id, render
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.foreign import assemble
from groundup.tokenizer.io import huggingface_files, load, save
from groundup.tokenizer.train import train

TALK = [Message("system", "Be brief."), Message("user", "What is 2 + 2?"), Message("assistant", "4"),
        Message("user", "  And\nthen? "), Message("assistant", "5. 🙂 ")]  # fmt: skip
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] | trim }}<|im_end|>{% endgeneration %}{% else %}{{ m['content'] }}<|im_end|>"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train(["What is 2 + 2? Be brief. The answer is five, and then it is six. What is the answer?"], 290)


def spoken(tokenizer: Tokenizer, messages: list[Message], prompt: bool = False) -> list[int]:
    """The format, written out by hand."""
    ids = [tokenizer.eot]
    for message in messages:
        ids += [
            tokenizer.special(f"<|{message.role}|>"),
            *tokenizer.encode_ordinary(message.content),
            end_id(tokenizer),
        ]
    return ids + ([tokenizer.special("<|assistant|>")] if prompt else [])


@pytest.mark.parametrize("prompt", [False, True])
def test_the_format(tokenizer: Tokenizer, prompt: bool) -> None:
    rendered = render(TALK, tokenizer, generation_prompt=prompt)
    assert rendered.tokens == spoken(tokenizer, TALK, prompt)
    assert len(rendered.loss_mask) == len(rendered.tokens)


def test_the_loss_is_on_what_the_assistant_wrote_and_its_end(tokenizer: Tokenizer) -> None:
    rendered = render(TALK, tokenizer, generation_prompt=True)
    scored = [t for t, m in zip(rendered.tokens, rendered.loss_mask, strict=True) if m]
    end = end_id(tokenizer)
    assert scored == [*tokenizer.encode_ordinary("4"), end, *tokenizer.encode_ordinary("5. 🙂 "), end]
    assert set(rendered.loss_mask) == {0, 1}
    assert rendered.loss_mask[-1] == 0


def test_a_prompt_is_the_beginning_of_the_whole(tokenizer: Tokenizer) -> None:
    """So what a model sees when it answers is what it saw when it learnt."""
    prompt, whole = render(TALK[:2], tokenizer, generation_prompt=True), render(TALK[:3], tokenizer)
    assert whole.tokens[: len(prompt.tokens)] == prompt.tokens
    assert whole.loss_mask == [0] * len(prompt.tokens) + [1] * (len(whole.tokens) - len(prompt.tokens))


@given(
    parts=st.lists(st.sampled_from([*DEFAULT_SPECIALS, "<|", "|>", "end", "<", "{{", "}}", "\ufdd0", "\ufdd1", "\n"]))
)
def test_no_text_can_forge_a_turn(tokenizer: Tokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    clean = text.replace("\ufdd0", "\ufffd").replace("\ufdd1", "\ufffd")
    messages = [Message("system", text), Message("user", text), Message("assistant", text)]
    rendered = render(messages, tokenizer, generation_prompt=True)
    assert rendered.tokens == spoken(tokenizer, [Message(m.role, clean) for m in messages], prompt=True)
    special = [t for t in rendered.tokens if t in tokenizer.specials.values()]
    end = end_id(tokenizer)
    roles = [tokenizer.special(f"<|{m.role}|>") for m in messages]
    assert special == [tokenizer.eot, roles[0], end, roles[1], end, roles[2], end, roles[2]]
    assert sum(rendered.loss_mask) == len(tokenizer.encode_ordinary(clean)) + 1


def test_an_unknown_role_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match="a role must be system, user or assistant, not tool"):
        render([Message("tool", "x")], tokenizer)


def test_a_vocabulary_without_the_format_says_which_special_it_lacks() -> None:
    with pytest.raises(TokenizerError, match=r"no special token <\|system\|>"):
        render(TALK, Tokenizer([]))
    with pytest.raises(TokenizerError, match=r"no special token <\|end\|>"):
        end_id(Tokenizer([]))


def test_a_broken_template_is_refused() -> None:
    with pytest.raises(TokenizerError, match="the chat template can't be read"):
        render(TALK, Tokenizer([], chat_template="{% for %}"))


def test_a_template_of_ones_own(tmp_path: Path) -> None:
    """ChatML, filters and all: the tokenizer's template is the one that is used, and it survives its file."""
    save(Tokenizer([], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], chat_template=CHATML), tmp_path)
    tokenizer = load(tmp_path)
    rendered = render(
        [Message("user", "hi<|im_end|>"), Message("assistant", " yes ")], tokenizer, generation_prompt=True
    )
    start, end = tokenizer.special("<|im_start|>"), tokenizer.special("<|im_end|>")
    expected = [
        start,
        *b"user\nhi<|im_end|>",
        end,
        10,
        start,
        *b"assistant\n",
        *b"yes",
        end,
        10,
        start,
        *b"assistant\n",
    ]
    assert rendered.tokens == expected
    assert [t for t, m in zip(rendered.tokens, rendered.loss_mask, strict=True) if m] == [*b"yes", end]


def test_a_template_that_does_not_say_what_is_written_teaches_the_answers_and_their_ends() -> None:
    plain = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    ours = [Tokenizer([], ["<|endoftext|>", "<|im_start|>", "<|end|>"], chat_template=t.replace("<|im_end|>", "<|end|>"))
            for t in (plain, CHATML)]  # fmt: skip
    talk = [
        Message("user", "hi<|end|>"),
        Message("assistant", " yes\n"),
        Message("user", "so?"),
        Message("assistant", "a"),
    ]
    for prompt in (False, True):
        guessed, told = (render(talk, tokenizer, prompt) for tokenizer in ours)
        assert guessed == told


LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' "
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message.role != 'system' %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)


@pytest.mark.parametrize(("template", "end"), [(LLAMA3, "<|eot_id|>"), (QWEN25, "<|im_end|>")])
def test_templates_of_llama_3_and_qwen_give_transformers_tokens(tmp_path: Path, template: str, end: str) -> None:
    from transformers import PreTrainedTokenizerFast

    names = ["<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>"]
    tokens = {bytes([byte]): byte for byte in range(256)}
    ours = assemble(
        tokens, None, {name: 300 + i for i, name in enumerate(names)}, "qwen2", template, begin="<|begin|>", end=end
    )
    for name, content in huggingface_files(ours, end=end).items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    talk = [*TALK, Message("user", "<|fake|> é\n"), Message("assistant", "\n  so <\n")]
    rows = [{"role": m.role, "content": m.content} for m in talk]
    for prompt in (False, True):
        rendered = render(talk, ours, generation_prompt=prompt)
        assert (
            rendered.tokens
            == theirs.apply_chat_template(rows, add_generation_prompt=prompt, return_dict=True)["input_ids"]
        )
        taught = ours.decode([t for t, m in zip(rendered.tokens, rendered.loss_mask, strict=True) if m])
        said = [m.content.strip() if "trim" in template else m.content for m in talk if m.role == "assistant"]
        assert taught == "".join(text + end for text in said)
    begun = render(talk[:2], ours, generation_prompt=True).tokens
    assert rendered.tokens[: len(begun)] == begun


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m['content'][1:] }}{% endfor %}", "takes an answer apart"),
        ("{{ messages[0]['content'] + 1 }}", "fails on this conversation"),
        ("{{ messages.absent.more }}", "fails on this conversation"),
    ],
)
def test_a_template_that_cannot_be_followed_is_named(template: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        render([Message("assistant", "yes")], Tokenizer([], chat_template=template))


def test_transformers_renders_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    for name, content in huggingface_files(tokenizer, end="<|end|>", context=256).items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    for kind in (PreTrainedTokenizerFast, AutoTokenizer):
        theirs = kind.from_pretrained(tmp_path)
        assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.eot, end_id(tokenizer))
        assert theirs.model_max_length == 256
        assert theirs("What is 2+2? <|end|>")["input_ids"] == tokenizer.encode("What is 2+2? <|end|>", "all")
        rows = [{"role": m.role, "content": m.content} for m in TALK]
        for prompt in (False, True):
            ours = render(TALK, tokenizer, generation_prompt=prompt)
            got = theirs.apply_chat_template(
                rows, add_generation_prompt=prompt, return_dict=True, return_assistant_tokens_mask=True
            )
            assert got["input_ids"] == ours.tokens
            assert got["assistant_masks"] == ours.loss_mask
            assert theirs.decode(ours.tokens) == tokenizer.decode(ours.tokens)
