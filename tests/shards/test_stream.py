"""The stream of batches: the same for any number of workers and ranks, resumed to the sample; what the page shows runs."""

import itertools
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, get_worker_info

from groundup.shards import Batch, TokenDataset, TokenStream, write_texts
from groundup.tokenizer import Tokenizer

# Other tests of this process may have started threads, and a machine may have fewer cores: a DataLoader works all the same.
pytestmark = [pytest.mark.filterwarnings(f"ignore:{said}") for said in (r".*fork\(\)", "This DataLoader will create")]
PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
B, T = 6, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    folder = tmp_path_factory.mktemp("shards") / "train"
    texts = [" ".join(str(k * k) for k in range(i, i + 4 + i % 5)) for i in range(20)]
    write_texts(texts, Tokenizer([]), folder, shard_tokens=50)
    return TokenDataset(folder, T, seed=3, document_mask=True)


def taken(stream: TokenStream, count: int, workers: int, **options: Any) -> list[Any]:
    loader = DataLoader(stream, batch_size=None, num_workers=workers, **options)
    return list(itertools.islice(loader, count))


def same(one: Batch, two: Batch) -> bool:
    assert one.positions is not None
    assert two.positions is not None
    pairs = ((one.tokens, two.tokens), (one.targets, two.targets), (one.positions, two.positions))
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_any_number_of_workers_gives_the_batches_of_training(data: TokenDataset, workers: int) -> None:
    count = 2 * len(data) // B + 2  # beyond two epochs
    assert len(data) % B, "a batch straddles two epochs"
    for k, batch in enumerate(taken(TokenStream(data, B), count, workers)):
        assert same(batch, data.batch(k * B, B))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_holds_every_window_once(data: TokenDataset, workers: int) -> None:
    batches = taken(TokenStream(data, 1), len(data), workers)
    found = sorted(tuple(batch.tokens[0].tolist()) for batch in batches)
    assert found == sorted(tuple(data[i][0].tolist()) for i in range(len(data)))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [2, 3])
def test_ranks_share_the_same_global_batches(data: TokenDataset, world: int, workers: int) -> None:
    ranks = [taken(TokenStream(data, B, rank, world), 5, workers) for rank in range(world)]
    for k, shares in enumerate(zip(*ranks)):
        assert torch.equal(torch.cat([share.tokens for share in shares]), data.batch(k * B, B).tokens)


def test_ranks_are_those_of_torch_distributed(data: TokenDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (TokenStream(data, B).rank, TokenStream(data, B).world) == (0, 1)
    for name, value in (("is_initialized", True), ("get_rank", 1), ("get_world_size", 2)):
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    assert same(next(iter(TokenStream(data, B))), data.batch(0, B, 1, 2))
    assert same(next(iter(TokenStream(data, B, 0, 1))), data.batch(0, B))
    with pytest.raises(ValueError, match="5 samples can't be shared among 2 ranks"):
        TokenStream(data, 5)
    with pytest.raises(ValueError, match="0 samples"):
        TokenStream(data, 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_in_the_middle_of_an_epoch_also_with_other_ranks(data: TokenDataset, workers: int) -> None:
    before = TokenStream(data, B)
    assert len(taken(before, 3, 0)) == 3
    state = json.loads(json.dumps(before.state_dict()))
    assert state == {"samples": 3 * B}
    for rank in range(2):
        after = TokenStream(data, B, rank, 2)
        after.load_state_dict(state)
        assert after.state_dict() == state
        for _ in range(2):  # each iteration begins there
            for k, batch in enumerate(taken(after, 4, workers), 3):
                assert same(batch, data.batch(k * B, B, rank, 2))


class Told(TokenStream):
    """A stream that sends the state of its worker with each batch, as torchdata's StatefulDataLoader does."""

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            yield batch, self.state_dict()


def resume(states: list[dict[str, int]], number: int) -> None:
    info = get_worker_info()
    assert info is not None
    info.dataset.load_state_dict(states[number])  # type: ignore[attr-defined]


def test_workers_go_on_from_their_own_states(data: TokenDataset) -> None:
    states = [state for _, state in taken(Told(data, B), 5, 2)]
    assert states[3:] == [{"samples": 4 * B}, {"samples": 6 * B}]  # of worker 1, then of worker 0, one batch ahead
    after = taken(Told(data, B), 4, 2, worker_init_fn=partial(resume, [states[4], states[3]]))
    for k, (batch, _) in zip((6, 5, 8, 7), after, strict=True):  # torchdata would ask worker 1 first
        assert same(batch, data.batch(k * B, B))


def test_a_process_gets_the_place_and_not_the_tokens(data: TokenDataset) -> None:
    sent = pickle.dumps(TokenStream(data, B))
    whole = pickle.loads(sent)
    assert data.shards._files[0].tobytes() not in sent
    assert same(next(iter(whole)), data.batch(0, B))


def test_what_the_page_shows_runs(tmp_path: Path) -> None:
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "TokenStream" in block)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "step 20: the same batch, told by its number or by a checkpoint: True"
