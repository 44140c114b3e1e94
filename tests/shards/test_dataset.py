"""Batches: every token a target once, the same samples on any number of devices, documents kept apart on request."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from groundup.base.errors import DataError
from groundup.shards import Batch, TokenDataset, permutation
from groundup.shards.write import write_texts
from groundup.tokenizer.encode import Tokenizer

TEXTS = [chr(97 + i) * (3 + i) for i in range(20)]
T = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "train"
    write_texts(TEXTS, Tokenizer([]), folder, shard_tokens=50)
    return folder


@pytest.fixture(scope="module")
def stream() -> list[int]:
    return [token for text in TEXTS for token in (256, *text.encode())]


def test_windows_cover_the_text_once(folder: Path, stream: list[int]) -> None:
    data = TokenDataset(folder, T)
    assert len(data) == (len(stream) - 1) // T
    tokens = torch.cat([data[i][0] for i in range(len(data))]).tolist()
    targets = torch.cat([data[i][1] for i in range(len(data))]).tolist()
    assert tokens == stream[: len(data) * T]
    assert targets == stream[1 : len(data) * T + 1]
    with pytest.raises(IndexError):
        data[len(data)]


def test_a_dataloader_takes_it(folder: Path) -> None:
    loader = torch.utils.data.DataLoader(TokenDataset(folder, T), batch_size=4, shuffle=False)
    tokens, targets = next(iter(loader))
    assert tokens.shape == targets.shape == (4, T)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])


def test_a_batch_is_the_permutations_next_samples(folder: Path) -> None:
    data = TokenDataset(folder, T, seed=5)
    order = permutation(len(data), 5, 0)
    batch = data.batch(3, 4)
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert batch.positions is None
    for row, i in enumerate(order[3:7]):
        assert torch.equal(batch.tokens[row], data[int(i)][0])
        assert torch.equal(batch.targets[row], data[int(i)][1])


def test_an_epoch_sees_every_window_and_the_next_one_in_another_order(folder: Path) -> None:
    data = TokenDataset(folder, T, seed=1)
    n = len(data)
    whole = data.batch(0, 2 * n).tokens
    key = lambda rows: sorted(map(tuple, rows.tolist()))  # noqa: E731
    assert key(whole[:n]) == key(whole[n:]) == key(torch.stack([data[i][0] for i in range(n)]))
    assert whole[:n].tolist() != whole[n:].tolist()
    across = data.batch(n - 2, 4).tokens  # a batch that straddles two epochs
    assert torch.equal(across, whole[n - 2 : n + 2])
    assert torch.equal(data.batch(0, 4).tokens, whole[:4])  # and back again, as a resume may


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_slice_the_same_global_batch(folder: Path, world: int) -> None:
    whole = TokenDataset(folder, T, seed=2).batch(12, 12)
    parts = [TokenDataset(folder, T, seed=2).batch(12, 12, rank, world) for rank in range(world)]
    assert torch.equal(torch.cat([part.tokens for part in parts]), whole.tokens)
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)


def test_a_batch_that_ranks_cannot_share_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="10 samples can't be shared among 4 ranks"):
        TokenDataset(folder, T).batch(0, 10, 0, 4)


def test_positions_restart_with_each_document(folder: Path, stream: list[int]) -> None:
    data = TokenDataset(folder, T, document_mask=True)
    batch = data.batch(0, len(data))
    assert batch.positions is not None
    assert batch.positions.shape == batch.tokens.shape
    for tokens, positions in zip(batch.tokens.tolist(), batch.positions.tolist(), strict=True):
        expected, at = [], -1
        for token in tokens:
            at = 0 if token == 256 else at + 1
            expected.append(at)
        assert positions == expected


def test_positions_with_documents_longer_than_the_window_and_empty_ones(tmp_path: Path) -> None:
    write_texts(["a" * 20, "", "", "b"], Tokenizer([]), tmp_path / "s")
    data = TokenDataset(tmp_path / "s", T, document_mask=True)
    rows = [data.positions(i).tolist() for i in range(len(data))]
    assert rows == [list(range(8)), list(range(8)), [0, 1, 2, 3, 4, 0, 0, 0]]


@pytest.mark.parametrize(("context", "fits"), [(3, True), (4, False), (1000, False)])
def test_a_corpus_smaller_than_the_context_is_refused(tmp_path: Path, context: int, fits: bool) -> None:
    write_texts(["abc"], Tokenizer([]), tmp_path / "s")  # four tokens with <|endoftext|>
    if fits:
        assert len(TokenDataset(tmp_path / "s", context)) == 1
    else:
        with pytest.raises(DataError, match=f"4 tokens, fewer than one context of {context} .* at most 3"):
            TokenDataset(tmp_path / "s", context)


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    write_texts([], Tokenizer([]), tmp_path / "s")
    with pytest.raises(DataError, match="0 tokens"):
        TokenDataset(tmp_path / "s", 8)
    with pytest.raises(DataError, match=r"no index\.json"):
        TokenDataset(tmp_path / "nowhere", 8)


def test_a_batch_moves_as_one(folder: Path) -> None:
    batch = TokenDataset(folder, T, document_mask=True).batch(0, 2).to("cpu")
    assert isinstance(batch, Batch)
    assert batch.positions is not None
    assert batch.tokens.is_contiguous()


def test_reading_shards_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys\nfrom groundup.shards import Shards, permutation, write_texts\n"
        f"assert Shards({str(folder)!r}).tokens\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_uint32_ids_become_int64(tmp_path: Path) -> None:
    pairs = [(left, right) for left in range(256) for right in range(256)]
    tokenizer = Tokenizer(pairs)
    write_texts(["\xff" * 10], tokenizer, tmp_path / "s")
    data = TokenDataset(tmp_path / "s", 2)
    assert data.batch(0, 2).tokens.dtype == torch.int64
    written = np.load(tmp_path / "s" / "tokens_00000.npy")
    assert written[0] == tokenizer.eot == 1 << 16 | 256
    assert [*data[0][0].tolist(), *data[1][0].tolist()] == written[:4].tolist()
