"""`groundup chat`: a conversation in the terminal, or through a pipe, with answers that appear as they are written."""

import contextlib
import sys
from collections.abc import Callable, Generator
from dataclasses import replace

from groundup.base.errors import ConfigError
from groundup.base.log import command, quantity
from groundup.base.records import Message
from groundup.infer.config import ChatConfig, SamplingParams, locate
from groundup.infer.engine import Answer, Engine
from groundup.infer.terminal import visible

__all__ = ["Conversation", "main"]

HELP = "/reset forgets the conversation, /exit (or Ctrl-D) leaves, Ctrl-C stops an answer"


class Conversation:
    """What has been said, and how the model goes on. A model that was never taught to chat continues the text instead."""

    def __init__(self, engine: Engine, config: ChatConfig) -> None:
        self.engine, self.config = engine, config
        self.left_out = 0  # messages that the last answer didn't see, for want of room
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the system message."""
        self.messages = [Message("system", self.config.system)] if self.config.system else []
        self.text, self.turns, self.left_out = "", 0, 0

    def say(self, words: str) -> Generator[str, None, None]:
        """Yields the answer piece by piece; what was written is remembered, even if it is stopped halfway."""
        turn, written = (self._reply if self.engine.chats else self._continue)(words), ""
        try:
            for piece in turn:
                written += piece
                yield piece
        finally:
            turn.close()
            self.turns += 1
            if self.engine.chats:
                self.messages.append(Message("assistant", written))
            else:
                self.text += written

    def _reply(self, words: str) -> Answer:
        messages = [*self.messages, Message("user", words)]
        tokens, self.left_out = self.engine.fit(messages, self.config.max_tokens)
        self.messages = messages  # only now: a message that is too long isn't remembered
        return self.engine.answer(tokens, self._params())

    def _continue(self, words: str) -> Answer:
        text = self.text + words
        tokens = self.engine.beginning(text)
        answer = self.engine.answer(
            tokens[-self.engine.room(self.config.max_tokens) :], self._params()
        )  # the newest part, if not all of it fits
        self.text = text
        return answer

    def _params(self) -> SamplingParams:
        return replace(self.config.sampling(), seed=self.config.seed + self.turns)


def greeting(engine: Engine) -> list[str]:
    """Returns the lines that say who is speaking."""
    size = f"{quantity(engine.model.config.params())} parameters, context of {engine.context} tokens"
    lines = [f"{engine.name}{f' ({engine.stage})' if engine.stage else ''}: {size}"]
    if not engine.chats:
        lines.append(
            f"This model hasn't been taught to chat, so it continues your text; `{command('sft')}` teaches it."
        )
    return [*lines, HELP]


def show(answer: Generator[str, None, None], write: Callable[[str], object]) -> bool:
    """Writes an answer as it comes; returns whether it came to its end (False: stopped by Ctrl-C)."""
    with contextlib.closing(answer):
        try:
            for piece in answer:
                write(visible(piece))
            return True
        except KeyboardInterrupt:
            return False


def main(config: ChatConfig) -> None:
    """Talks until /exit or the end of the input. Raises: CheckpointError if there is no model to talk to."""
    engine = Engine.load(locate(config.project, config.stage, config.name), config.device)
    conversation, terminal = Conversation(engine, config), sys.stdin.isatty()
    sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]
    if terminal:
        with contextlib.suppress(ImportError):  # the arrow keys; Windows has no readline and needs none
            import readline  # noqa: F401
    print("\n".join(greeting(engine)), flush=True)

    def write(text: str) -> None:
        print(text, end="", flush=True)

    while True:
        try:
            words = input("\n> " if terminal else "").rstrip("\n")
            if words.strip() in ("/exit", "/quit"):
                break
            _turn(conversation, words, write)
        except EOFError:
            break
        except KeyboardInterrupt:  # at the prompt, or just as an answer ends
            print("\n" + HELP)
    if terminal:
        print()


def _turn(conversation: Conversation, words: str, write: Callable[[str], object]) -> None:
    """Obeys a command, or prints one answer and what there is to say about it."""
    if words.strip() == "/reset":
        conversation.reset()
        print("forgotten")
        return
    if words.startswith("/"):
        print(f"{words.split()[0]} isn't a command. {HELP}")
        return
    if not words.strip():
        return
    before = conversation.left_out
    try:
        whole = show(conversation.say(words), write)
        print("" if whole else " [stopped]")
    except ConfigError as error:  # a message too long for the context: the conversation goes on
        print(f"({error})")
    if conversation.left_out and not before:
        print("(The conversation is longer than the model's context: it no longer sees the oldest messages.)")
