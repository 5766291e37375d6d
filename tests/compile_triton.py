"""Compile the Triton kernels without a GPU: what the interpreter runs is not all that the compiler takes.

Run by tests/test_triton.py in a process of its own. Instead of starting a kernel it is compiled for the same
arguments, as far as the first of the compiler's languages: nearly all that can go wrong does so there.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from torch import Tensor
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

from fracspike.neurons.backends import triton as kernels
from fracspike.neurons.backends.triton import launch

NAMES = {torch.float32: "fp32", torch.float64: "fp64", torch.int32: "i32", torch.bfloat16: "bf16"}
FORM = (1.0, 3.0, 0.0, 1.0)


class Compiled:
    """Stands where a kernel stands."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self

    def __call__(self, *args: Any, num_warps: int, enable_fp_fusion: bool, **named: Any) -> None:
        values = dict(zip(self.kernel.arg_names, args, strict=False)) | named
        constants: dict[tuple[int, ...], Any] = {}
        signature: dict[str, Any] = {}
        for i, parameter in enumerate(self.kernel.params):
            value = values[parameter.name]
            if parameter.is_constexpr:
                constants[(i,)] = value
                signature[parameter.name] = "constexpr"
            else:
                signature[parameter.name] = parameter.annotation_type or kind(value, (i,), constants)
        source = ASTSource(self.kernel, signature, constexprs=constants)
        target = GPUTarget("cuda", 90, 32)
        backend = make_backend(target)
        options = backend.parse_options({"num_warps": num_warps, "enable_fp_fusion": enable_fp_fusion})
        context = ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        codegen, modules = backend.get_codegen_implementation(options), backend.get_module_map()
        source.make_ir(target, options, codegen, modules, context)


def kind(value: Any, path: tuple[int, ...], constants: dict[tuple[int, ...], Any]) -> Any:
    """Return what the compiler calls an argument; numbers of 1 and what is not there are constants."""
    if isinstance(value, Tensor):
        return "*" + NAMES[value.dtype]
    if isinstance(value, tuple):
        items = [kind(item, (*path, i), constants) for i, item in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if value is None or value == 1:
        constants[path] = value
        return "constexpr"
    return "i32"


def both(T: int, M: int, dtype: torch.dtype = torch.float32, *, rich: bool = False, **own: Any) -> None:
    """Compile both kernels for a layer, plain or with all that there is."""
    options = kernels.Options(**({"form": FORM} | own))
    kept = options.computed_in(dtype)
    loss = torch.tensor([1e-4, 1e-2, 0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    columns = 4 if rich else 1
    table = kernels.tabulate(loss.reshape(-1, 1).expand(-1, columns), loss, kept, leaky=options.leaky)
    one, row = torch.ones(columns), torch.zeros(M, dtype=kept)
    constants, start = kernels.Constants(one, one, one), kernels.Start(row)
    if rich:
        constants = kernels.Constants(*[one] * 7)
        start = kernels.Start(row, torch.zeros(6, M).double(), row.int(), row, row, row)
    drive = torch.zeros(M, T, dtype=dtype).T
    noise = torch.zeros(T, M, dtype=dtype) if options.step == "soft" else None
    made = kernels.forward(drive, table, constants, start, options, noise=noise, over=rich, modes=rich)
    sequence = torch.zeros(T, M, dtype=kept)
    arriving = kernels.Arriving(spikes=drive)
    if rich:
        arriving = kernels.Arriving(drive, sequence, sequence, sequence, torch.zeros(6, M).double(), row)
    kernels.adjoint(
        drive, table, constants, start, options, made, arriving,
        derivative=None if options.form else sequence,
        wants=kernels.Wants(weights=not rich or options.leaky, spikes=rich, start=rich),
    )  # fmt: skip


def main() -> None:
    """Compile for a few options that between them take every branch."""
    ahead, back = launch.ahead.forward_kernel, launch.back.adjoint_kernel
    with (
        mock.patch.object(launch.ahead, "forward_kernel", Compiled(ahead)),
        mock.patch.object(launch.back, "adjoint_kernel", Compiled(back)),
    ):
        both(5, 8)
        both(1, 1)
        both(5, 8, torch.bfloat16, reset="none", step="never")
        both(5, 8, torch.float64, leaky=False, restart=True)
        both(5, 8, step="above", detach=True, double=True)
        both(5, 8, step="soft", slope=2.0, form=(), reset="value")
        both(5, 8, rich=True, restart=True, period=2, reset="value")
        both(5, 8, rich=True, leaky=False, period=1)
    print("compiled")


if __name__ == "__main__":
    main()
