"""What each of the processes of test_parallel runs: plain and fast parallel code against one process. Prints OK or fails."""

import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.parallel import plain
from groundup.parallel.data import same_parameters, sum_gradients
from groundup.parallel.mesh import world

TOLERANCE = {"atol": 1e-6, "rtol": 1e-5}


def whole() -> tuple[nn.Linear, nn.Linear, Tensor, Tensor]:
    torch.manual_seed(0)
    return nn.Linear(8, 24), nn.Linear(24, 8), torch.randn(6, 8, requires_grad=True), torch.randn(6, 8)


def check_tensor_parallel() -> None:
    up, down, x, goal = whole()
    expected = down(F.gelu(up(x)))
    F.mse_loss(expected, goal).backward()
    x_gradient = x.grad
    assert x_gradient is not None
    x.grad = None
    layer = plain.ParallelFeedForward(up, down)
    column, row = layer.up, layer.down
    assert isinstance(column, plain.ColumnParallelLinear)
    assert isinstance(row, plain.RowParallelLinear)
    y = layer(x)
    F.mse_loss(y, goal).backward()
    torch.testing.assert_close(y, expected, **TOLERANCE)
    torch.testing.assert_close(x.grad, x_gradient, **TOLERANCE)
    torch.testing.assert_close(column.weight.grad, plain.my_share(up.weight.grad, 0), **TOLERANCE)
    torch.testing.assert_close(column.bias.grad, plain.my_share(up.bias.grad, 0), **TOLERANCE)
    torch.testing.assert_close(row.weight.grad, plain.my_share(down.weight.grad, 1), **TOLERANCE)
    torch.testing.assert_close(row.bias.grad, down.bias.grad, **TOLERANCE)


def check_functions() -> None:
    rank, size = dist.get_rank(), dist.get_world_size()
    x = torch.full((3,), float(rank + 1), requires_grad=True)
    (plain.SumOverAll.apply(x) * (rank + 1)).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3,), float(rank + 1)))
    x.grad = None
    (plain.CopyToAll.apply(x) * (rank + 1)).sum().backward()
    torch.testing.assert_close(x.grad, torch.full((3,), float(size * (size + 1) // 2)))


def check_data_parallel() -> None:
    """Shares of unequal length: 4 rows and 2."""
    up, down, x, goal = whole()
    net = nn.Sequential(up, nn.GELU(), down)
    (F.mse_loss(net(x), goal, reduction="sum") / 6).backward()
    expected = [p.grad for p in net.parameters()]
    mine = slice(0, 4) if dist.get_rank() == 0 else slice(4, 6)
    count = len(range(6)[mine])
    for way in ("plain", "fast"):
        net.zero_grad()
        F.mse_loss(net(x[mine]), goal[mine], reduction="sum").backward()
        if way == "plain":
            plain.average_gradients(net, count)
        else:
            total = here.sum([count])[0]
            sum_gradients(net, here)
            for p in net.parameters():
                assert p.grad is not None
                p.grad /= total
        for p, gradient in zip(net.parameters(), expected, strict=True):
            torch.testing.assert_close(p.grad, gradient, **TOLERANCE)


def check_same_parameters() -> None:
    torch.manual_seed(here.rank)
    layer = nn.Linear(4, 4)
    same_parameters(layer, here)
    torch.manual_seed(0)
    torch.testing.assert_close(layer.weight, nn.Linear(4, 4).weight, atol=0, rtol=0)
    assert here.share(f"from {here.rank}") == "from 0"


with world("cpu") as here:
    assert here.size == 2
    check_tensor_parallel()
    check_functions()
    check_data_parallel()
    check_same_parameters()
    print(f"OK {here.rank}")
    sys.stdout.flush()
