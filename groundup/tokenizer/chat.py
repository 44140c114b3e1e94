"""The chat format: how a conversation becomes tokens, and which of them a model is taught to write."""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from groundup.base.errors import DataError, TokenizerError
from groundup.base.records import Message
from groundup.tokenizer.encode import EOT, Tokenizer
from groundup.tokenizer.foreign import Foreign

__all__ = ["DEFAULT_SPECIALS", "END", "TEMPLATE", "Rendered", "chat_form", "end_id", "render", "roles"]

END = "<|end|>"
DEFAULT_SPECIALS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", END)

# A Jinja template as Hugging Face defines them, so that it travels with an exported model. Between `generation` and
# `endgeneration` stands what the assistant writes itself: its words and the sign that it has finished.
TEMPLATE = (
    "<|endoftext|>"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('a role must be system, user or assistant, not ' + message['role']) }}"
    "{% endif %}"
    "{{ '<|' + message['role'] + '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

# Three noncharacters, which no valid text holds, mark what the rendered string alone couldn't tell.
QUOTED, BEGIN, FINISH = "\ufdd0", "\ufdd1", "\ufdd2"
MARKS = re.compile(f"[{QUOTED}{BEGIN}{FINISH}]")


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens; `loss_mask` is 1 on what the assistant wrote, its <|end|> included, else 0."""

    tokens: list[int]
    loss_mask: list[int]


def chat_form(tokenizer: Tokenizer) -> Literal["", "ours", "theirs"]:
    """Returns whose chat form a vocabulary has the words of: ours, that of a template brought from elsewhere, or nobody's."""
    if all(name in tokenizer.specials for name in DEFAULT_SPECIALS[1:]):  # <|endoftext|> may have another name
        return "ours"
    return "theirs" if tokenizer.chat_template is not None else ""


def end_id(tokenizer: Tokenizer) -> int:
    """Returns the id of the special with which a turn ends. Raises: TokenizerError if the vocabulary has none."""
    return tokenizer.special(roles(tokenizer)[1])


def roles(tokenizer: Tokenizer) -> tuple[str, str]:
    """Returns the specials that begin a conversation and end a turn: <|endoftext|> and <|end|>, unless others made it."""
    return (tokenizer.begin, tokenizer.end) if isinstance(tokenizer, Foreign) else (EOT, END)


@functools.cache
def _compile(template: str) -> Any:
    """Returns the compiled template, with the `generation` tag writing marks around what it encloses."""
    import jinja2
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - Jinja reads this class attribute

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller: Any) -> str:
            return BEGIN + caller() + FINISH

    def raise_exception(message: str) -> None:
        raise DataError(message)

    # A template can come with a foreign model, so it runs in Jinja's sandbox, with the options Hugging Face uses.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    try:
        return environment.from_string(template)
    except jinja2.TemplateError as error:
        raise TokenizerError(
            f"the chat template can't be read (line {getattr(error, 'lineno', '?')}: {error})"
        ) from error


def _quote(text: str, first: frozenset[str]) -> str:
    """Returns the text with a mark behind each character that could begin a special, so that none can arise from it."""
    text = MARKS.sub("\ufffd", text)
    for character in first:
        text = text.replace(character, character + QUOTED)
    return text


def render(messages: Sequence[Message], tokenizer: Tokenizer, generation_prompt: bool = False) -> Rendered:
    """Returns the conversation as tokens, by the tokenizer's own template or else `TEMPLATE`.

    What people or models wrote never becomes a special token, whatever it says. With `generation_prompt` the tokens end
    where the assistant's answer begins. A template that doesn't say what the assistant writes itself (few of other
    people's do) is taught on the assistant's words and the end of the turn behind them.
    Raises: DataError for an unknown role; TokenizerError if the vocabulary lacks a special of the format, or a template
    can't be followed.
    """
    if tokenizer.chat_template is None:
        for name in DEFAULT_SPECIALS:
            tokenizer.special(name)
    template, first = tokenizer.chat_template or TEMPLATE, frozenset(name[0] for name in tokenizer.specials)
    rows = [{"role": m.role, "content": _quote(m.content, first)} for m in messages]
    begin, end = roles(tokenizer)
    values = {"add_generation_prompt": generation_prompt, "bos_token": begin, "eos_token": end}
    if re.search(r"{%-?\s*generation\b", template):
        text = _fill(template, messages=rows, **values)
    else:
        text = _guess(template, rows, **values)
    tokens: list[int] = []
    mask: list[int] = []
    for number, span in enumerate(re.split(f"[{BEGIN}{FINISH}]", text)):
        written = number % 2  # the marks come in pairs: every second span is the assistant's
        for i, part in enumerate(re.split(_specials(tuple(tokenizer.specials)), span)):
            ids = [tokenizer.specials[part]] if i % 2 else tokenizer.encode_ordinary(part.replace(QUOTED, ""))
            tokens += ids
            mask += [written] * len(ids)
    return Rendered(tokens, mask)


def _guess(template: str, rows: Sequence[dict[str, str]], **values: Any) -> str:
    """Returns the filled template with marks around what the assistant says and the end of its turns.

    The marks stand in the answers themselves, with white space at their edges outside where a template strips it.
    Raises: TokenizerError if a template does more to an answer than to place it.
    """
    plain = _fill(template, messages=rows, **values)
    for answer in (r"\A(.*)\Z", r"\A\s*(.*?)\s*\Z"):
        marked = [
            row | {"content": re.sub(answer, _between, row["content"], flags=re.DOTALL)}
            if row["role"] == "assistant"
            else row
            for row in rows
        ]
        text = _fill(template, messages=marked, **values)
        if re.sub(f"[{BEGIN}{FINISH}]", "", text) == plain:
            return re.sub(rf"{FINISH}(\s*{re.escape(values['eos_token'])})", rf"\1{FINISH}", text)
    raise TokenizerError("the chat template takes an answer apart; put {% generation %} tags around what is written")


def _between(match: re.Match[str]) -> str:
    before, after = match[0][: match.start(1) - match.start()], match[0][match.end(1) - match.start() :]
    return before + BEGIN + match[1] + FINISH + after


def _fill(template: str, **values: Any) -> str:
    """Returns the filled template. Raises: TokenizerError for a fault in it, DataError for one that it finds itself."""
    import jinja2

    try:
        return str(_compile(template).render(tools=None, documents=None, **values))
    except (jinja2.TemplateError, TypeError) as error:
        raise TokenizerError(f"the chat template fails on this conversation ({error})") from error


@functools.cache
def _specials(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("(" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")" if names else "(?!)")
