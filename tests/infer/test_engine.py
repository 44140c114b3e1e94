import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.base.errors import CheckpointError, ConfigError
from groundup.base.records import Message
from groundup.infer.config import SamplingParams
from groundup.infer.engine import Engine, choose_device
from groundup.infer.sample import generate
from groundup.model.config import ModelConfig
from groundup.model.transformer import Transformer
from groundup.tokenizer.chat import DEFAULT_SPECIALS
from groundup.tokenizer.encode import Tokenizer

BYTES = Tokenizer([], DEFAULT_SPECIALS, "bytes")


@pytest.fixture
def engine() -> Engine:
    model = Transformer(ModelConfig(vocab_size=BYTES.vocab_size, context=64, d_model=32, n_layers=2), seed=1)
    return Engine(model, BYTES, "random")


def test_the_stream_is_what_the_batch_gives(engine: Engine) -> None:
    params = SamplingParams(temperature=0.9, top_k=50, top_p=0.95, max_tokens=30, seed=3, stop_ids=(5, 6))
    for prompt in ([1, 2, 3], [9] * 40, [9] * 40 + [7]):
        assert list(engine.stream(prompt, params)) == generate(engine.model, [prompt], params)[0]


def test_a_kept_prefix_changes_nothing(engine: Engine) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=10)
    first = list(engine.stream([1, 2, 3, 4], params))
    longer = [1, 2, 3, 4, *first, 8]
    fresh = Engine(engine.model, BYTES)
    assert list(engine.stream(longer, params)) == list(fresh.stream(longer, params))
    assert list(engine.stream([1, 2, 9], params)) == list(fresh.stream([1, 2, 9], params))
    assert list(engine.stream([1, 2, 3, 4], params)) == first


def test_only_what_is_new_is_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    widths, hidden = [], engine.model.hidden
    monkeypatch.setattr(
        engine.model, "hidden", lambda tokens, **rest: (widths.append(tokens.shape[1]), hidden(tokens, **rest))[1]
    )
    params = SamplingParams(temperature=0.0, max_tokens=3)
    answer = list(engine.stream([1, 2, 3, 4], params))
    list(engine.stream([1, 2, 3, 4, *answer, 5], params))
    assert widths == [4, 1, 1, 2, 1, 1]  # the last token of the first answer was never read


def test_no_half_character(engine: Engine) -> None:
    answer = engine.answer([1], SamplingParams(max_tokens=60))
    pieces = list(answer)
    ids = list(engine.stream([1], SamplingParams(max_tokens=60, stop_ids=tuple(BYTES.specials.values()))))
    text = BYTES.decode(ids[:-1] if answer.finish_reason == "stop" else ids)
    assert "".join(pieces) == text
    assert answer.completion_tokens == len(ids)


def test_the_mode_of_the_readers_thread_is_untouched(engine: Engine) -> None:
    for _ in engine.stream([1], SamplingParams(max_tokens=3)):
        assert not torch.is_inference_mode_enabled()


def test_context(engine: Engine) -> None:
    assert len(list(engine.stream([1] * 60, SamplingParams(max_tokens=100)))) == 4
    for wrong in ([], [1] * 64, [1] * 99):
        with pytest.raises(ConfigError, match="prompt"):
            list(engine.stream(wrong, SamplingParams()))
    with pytest.raises(ConfigError, match="top_p"):
        engine.answer([1], SamplingParams(top_p=0))


def test_the_oldest_turns_make_room(engine: Engine) -> None:
    def talk(*words: str) -> list[Message]:
        return [Message(("user", "assistant")[i % 2], word) for i, word in enumerate(words)]

    system = Message("system", "hi")
    assert engine.fit([system, *talk("a", "b", "c")], 16)[1] == 0
    tokens, left_out = engine.fit([system, *talk("a" * 20, "b" * 20, "c" * 10)], 16)
    assert left_out == 2
    assert BYTES.decode(tokens) == "<|endoftext|><|system|>hi<|end|><|user|>cccccccccc<|end|><|assistant|>"
    with pytest.raises(ConfigError, match="the model's context holds 64"):
        engine.fit(talk("x" * 100), 16)


def test_one_text_at_a_time(engine: Engine) -> None:
    params = SamplingParams(max_tokens=5)
    first = engine.stream([1], params)
    next(first)
    with pytest.raises(ConfigError, match="already writing"):
        next(engine.stream([2], params))
    done = threading.Event()

    def other() -> None:
        list(engine.stream([2], params))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert not done.wait(0.2)
    first.close()  # type: ignore[attr-defined]
    assert done.wait(10)
    thread.join()


def test_cancel(engine: Engine) -> None:
    cancel = threading.Event()
    answer = engine.answer([1], SamplingParams(temperature=0.0, max_tokens=60), cancel=cancel)
    next(answer)
    cancel.set()
    assert len(list(answer)) <= 1  # at most the bytes of a character that was begun
    assert answer.finish_reason == "cancelled"
    assert answer.completion_tokens <= 4


def test_stop_texts(make_project: Callable[..., Path], tmp_path: Path) -> None:
    engine = Engine.load(make_project(tmp_path / "p", letters="ab"))
    params = SamplingParams(max_tokens=100, seed=1)
    whole = "".join(engine.answer([1], params))
    assert len(whole) == 100
    for stop in (["bab"], ["zzz", "aab", "bb"], ["b" * 90]):
        pieces = list(answer := engine.answer([1], params, stop))
        cut = min((at for text in stop if (at := whole.find(text)) >= 0), default=None)
        assert "".join(pieces) == whole[:cut]
        assert answer.finish_reason == ("length" if cut is None else "stop")


def test_likelihoods(engine: Engine) -> None:
    answer = engine.answer([1, 2], SamplingParams(temperature=0.0, max_tokens=5), likelihoods=3)
    list(answer)
    with torch.inference_mode():
        expected = engine.model(torch.tensor([[1, 2]]))[0, -1].log_softmax(-1)
    first = answer.likelihoods[0]
    assert first.logprob == pytest.approx(float(expected.max()), abs=1e-5)
    assert first.top[0] == (first.token, first.logprob)
    assert len(first.top) == 3


def test_ids_without_a_text_are_never_picked() -> None:
    model = Transformer(ModelConfig(vocab_size=512, context=64, d_model=16, n_layers=1), seed=1)
    answer = Engine(model, BYTES).answer([1], SamplingParams(max_tokens=60))
    assert "".join(answer)
    with pytest.raises(CheckpointError, match="261 ids, the model knows 100"):
        Engine(Transformer(ModelConfig(vocab_size=100, d_model=16), seed=1), BYTES)


def test_load(make_project: Callable[..., Path], tmp_path: Path) -> None:
    project = make_project(tmp_path / "my", stage="pretrain")
    engine = Engine.load(project)
    assert (engine.name, engine.stage, engine.chats, engine.context) == ("my", "pretrain", False, 256)
    make_project(project, stage="dpo")
    engine = Engine.load(project, "cpu")
    assert (engine.stage, engine.chats) == ("dpo", True)
    answer = engine.chat([Message("user", "hello")], SamplingParams(max_tokens=7))
    assert len("".join(answer)) == 7
    assert (answer.finish_reason, answer.prompt_tokens, answer.completion_tokens) == ("length", 9, 7)
    with pytest.raises(CheckpointError, match="no such folder"):
        Engine.load(tmp_path / "absent")


def test_a_missing_device() -> None:
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="expected auto"):
        choose_device("gpu")
    with pytest.raises(ConfigError, match="there is no cuda:99 here"):
        choose_device("cuda:99")
