"""One process among one: no process group, the same calls."""

import pytest
import torch

from groundup.base.errors import ConfigError
from groundup.parallel.data import _buckets, same_parameters, sum_gradients
from groundup.parallel.mesh import World, choose_device, set_threads, world


def test_alone() -> None:
    with world("cpu") as here:
        assert (here.rank, here.size, here.main) == (0, 1, True)
        assert here.sum([1, 2.5, torch.tensor(3)]) == [1.0, 2.5, 3.0]
        assert here.share({"a": 1}) == {"a": 1}
    assert not torch.distributed.is_initialized()


def test_gradients_of_one_process_stay() -> None:
    layer = torch.nn.Linear(2, 2)
    layer.weight.grad = torch.ones(2, 2)
    sum_gradients(layer, World())
    same_parameters(layer, World())
    assert torch.equal(layer.weight.grad, torch.ones(2, 2))
    assert layer.bias.grad is None


def test_buckets_hold_one_dtype_and_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.parallel.data.BUCKET_BYTES", 100)
    tensors = [torch.zeros(n) for n in (10, 10, 10, 50, 1)] + [torch.zeros(3, dtype=torch.float64)]
    assert [[len(t) for t in bucket] for bucket in _buckets(tensors)] == [[10, 10], [10], [50], [1], [3]]


def test_choose_device() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="expected auto, cpu, cuda or mps, not 'tpu'"):
        choose_device("tpu")
    for device, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if not there:
            with pytest.raises(ConfigError, match=f"there is no {device} here"):
                choose_device(device)


def test_set_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        assert set_threads(2) == 2
        assert torch.get_num_threads() == 2
        assert set_threads(0) == 1
    finally:
        torch.set_num_threads(before)
