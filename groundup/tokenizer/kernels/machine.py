"""What the compiled kernels stand on: their options, and loads and stores at bare addresses.

Numba compiles the kernels when they are first called (some seconds) and `base.kernels` keeps them. Importing this module
loads Numba, so only kernels do it. A kernel takes arrays; its parts take addresses (`array.ctypes.data`), because an array
handed from function to function costs an atomic reference count each time: the splitter ran at 28 MB/s with arrays and at
350 with addresses.
"""

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from groundup.base import kernels

__all__ = [
    "first_bit",
    "kernel",
    "load8",
    "load16",
    "load32",
    "load64",
    "part",
    "prefetch",
    "store8",
    "store16",
    "store32",
    "store64",
    "word64",
]

OPTIONS: dict[str, Any] = {"boundscheck": False, "error_model": "numpy"}
part = numba.njit(forceinline=True, nogil=True, **OPTIONS)  # a function that is compiled into its callers


def kernel(function: Callable) -> Any:
    """Returns the function compiled on its first call with this room's options, or taken from the cache."""
    return kernels.kernel(function, **OPTIONS)


def _load(bits: int, scale: int) -> Callable:
    """Returns the part (address, index) -> the number there, `scale` bytes an index, at any alignment."""

    def typed(context: Any, address: Any, index: Any) -> Any:
        result = types.uint64 if bits == 64 else types.int64

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.add(args[0], builder.mul(args[1], ir.Constant(ir.IntType(64), scale)))
            value = builder.load(builder.inttoptr(where, ir.IntType(bits).as_pointer()))
            value.align = 1
            return value if bits == 64 else builder.zext(value, ir.IntType(64))

        return result(types.int64, types.int64), generate

    return intrinsic(typed)


def _store(bits: int, scale: int) -> Callable:
    """Returns the part (address, index, value) that writes the value's lowest bits there."""

    def typed(context: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            where = builder.add(args[0], builder.mul(args[1], ir.Constant(ir.IntType(64), scale)))
            lowest = args[2] if bits == 64 else builder.trunc(args[2], ir.IntType(bits))
            builder.store(lowest, builder.inttoptr(where, ir.IntType(bits).as_pointer())).align = 1
            return context.get_dummy_value()

        given = types.uint64 if bits == 64 else types.int64
        return types.void(types.int64, types.int64, given), generate

    return intrinsic(typed)


load8, load16, load32, load64 = _load(8, 1), _load(16, 2), _load(32, 4), _load(64, 8)
word64 = _load(64, 1)  # eight bytes from any byte on
store8, store16, store32, store64 = _store(8, 1), _store(16, 1), _store(32, 4), _store(64, 8)  # store16: to any byte


@intrinsic
def first_bit(context: Any, value: Any) -> Any:
    """Returns the place of the lowest set bit of a number other than 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), generate


@intrinsic
def prefetch(context: Any, address: Any) -> Any:
    """Asks for the cache line at an address, which will be read soon."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, small = ir.IntType(8).as_pointer(), ir.IntType(32)
        signature_ = ir.FunctionType(ir.VoidType(), [pointer, small, small, small])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [pointer], signature_)
        builder.call(ask, [builder.inttoptr(args[0], pointer), small(0), small(3), small(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate
