"""The one way from a problem to what a backend makes of it, and back: three operators and one Function.

``fracspike::integrate`` runs a sequence and has no gradient. Then the derivative of the spike is evaluated
on the whole tensor of potentials, by whatever surrogate there is, in torch. Then ``fracspike::attach`` takes
both and *is* the layer for autograd: forward it hands on what was made, backward it runs
``fracspike::adjoint``. So no surrogate need be known to a backend, except those that one evaluates itself.

`torch.compile` and `torch.export` see the operators. Elsewhere `Attach` does the same without the copies
that an operator must make, and the backends are called as functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..problem import Arriving, Fixed, Made, Moved, Options, Problem
from . import surrogate
from .base import like_made
from .given import Witness, alias
from .registry import find

N_MOVED, N_FIXED, N_MADE = len(Moved._fields), len(Fixed._fields), len(Made._fields)


def integrate(problem: Problem, backend: str) -> Made:
    """Run a problem by a backend, with its graph.

    Raises:
        MismatchError: if the surrogate does not step as the problem says.
    """
    moved, fixed, options, step = problem.moved, problem.fixed, problem.options, problem.step
    bare = moved.detach()
    plain = is_plain(bare.current)
    with torch.no_grad():
        if plain:
            made = find(backend).forward(bare, fixed, options)
        else:
            made = Made(*_integrate([*bare, *fixed], options.pack(), backend))
    if not (torch.is_grad_enabled() and (step.trained or any(part.requires_grad for part in moved))):
        surrogate.check(step, made, bare)
        return made
    empty = bare.current.new_empty(0)
    derivative, smooth = made.before, empty
    if not options.form:
        with torch.no_grad():
            derivative = surrogate.slopes(step, made, bare)
        if step.trained:
            smooth = surrogate.smooth(step, made, bare)
    if plain:
        function: Any = Attach.apply
        found = function((problem, backend, made, derivative), smooth, *moved)
    else:
        found = _attach([*moved, *fixed, *made, derivative, smooth], options.pack(), backend)
    return made._replace(**dict(zip(Arriving._fields, found, strict=True)))


def is_plain(x: Tensor) -> bool:
    """Return whether nobody is to see an operator: no compiler, no tracer (which has its own tensors)."""
    return type(x) is Tensor and not torch.compiler.is_compiling()


class Attach(torch.autograd.Function):
    """What was made, as a function of all it follows from."""

    @staticmethod
    def forward(ctx: Any, given: tuple[Problem, str, Made, Tensor], smooth: Tensor, *moved: Tensor) -> Any:
        """Return what was made as it is; keep what the adjoint asks for."""
        problem, backend, made, derivative = given
        options = problem.options
        ctx.options, ctx.backend = options, backend
        ctx.trained, ctx.from_potential = smooth.numel() > 0, derivative is made.before
        kept = _kept(made, problem.moved, options, backend)
        derivative = alias(derivative) if ctx.from_potential else derivative
        saved = (alias(x) if x.numel() else x for x in kept)
        ctx.save_for_backward(*moved, *problem.fixed, *saved, derivative)
        ctx.set_materialize_grads(False)
        before = made.before if options.keep_before else made.before.new_empty(0)
        output = made.spikes, before, made.z, made.a, made.w
        ctx.given = Witness(*output)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Run the adjoint."""
        tensors = ctx.saved_tensors
        moved, fixed = Moved(*tensors[:N_MOVED]), Fixed(*tensors[N_MOVED : N_MOVED + N_FIXED])
        made, derivative = Made(*tensors[N_MOVED + N_FIXED : -1]), tensors[-1]
        if ctx.given.written:
            again = find(ctx.backend).forward(moved.detach(), fixed, ctx.options)
            made = _kept(again, moved, ctx.options, ctx.backend)
            derivative = again.before if ctx.from_potential else derivative
        wants = [*ctx.needs_input_grad[2:], ctx.trained]
        arriving = _arriving(grads, moved.current)
        call = moved, fixed, ctx.options, made, derivative, arriving, wants
        if torch.is_grad_enabled():
            function: Any = Adjoint.apply
            found = function(ctx.backend, call, *moved, *arriving)
        else:
            found = find(ctx.backend).adjoint(*call)
        return (
            None,
            found[-1] if ctx.trained else None,
            *(g if want else None for g, want in zip(found, wants[:-1], strict=False)),
        )


class Adjoint(torch.autograd.Function):
    """The gradients, of which there is no derivative."""

    @staticmethod
    def forward(ctx: Any, backend: str, call: tuple[Any, ...], *followed: Tensor) -> Any:
        """Return them; they follow from the problem and from what arrives."""
        return tuple(find(backend).adjoint(*call))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Say that there is none."""
        raise RuntimeError(NO_SECOND)


NO_SECOND = "a compiled backend has no second derivative; build the layer with backend='torch', which has"


def _kept(made: Made, moved: Moved, options: Options, backend: str) -> Made:
    """Return what the adjoint asks for of what was made; the rest is empty."""
    kept = find(backend).keeps(moved, options)
    empty = moved.current.new_empty(0)
    return Made(*(x if name in kept else empty for name, x in made._asdict().items()))


def _arriving(grads: Sequence[Tensor | None], like: Tensor) -> Arriving:
    empty = like.new_empty(0)
    return Arriving(*(empty if g is None else g for g in grads))


# -- the same for a compiler ------------------------------------------------------------------------------


@torch.library.custom_op("fracspike::integrate", mutates_args=())
def _integrate(tensors: Sequence[Tensor], options: Sequence[float], backend: str) -> list[Tensor]:
    """Return what was made of a problem without a graph."""
    made = find(backend).forward(*_split(tensors), Options.unpack(options))
    return _apart(made, tensors)


@_integrate.register_fake
def _(tensors: Sequence[Tensor], options: Sequence[float], backend: str) -> list[Tensor]:
    return list(like_made(*_split(tensors), Options.unpack(options)))


@torch.library.custom_op("fracspike::attach", mutates_args=())
def _attach(tensors: Sequence[Tensor], options: Sequence[float], backend: str) -> list[Tensor]:
    """Return what was made, as a function of all it follows from.

    The tensors are ``Moved, Fixed, Made, derivative, smooth``.
    """
    return [x.clone() for x in _shown(tensors, Options.unpack(options))]


@_attach.register_fake
def _(tensors: Sequence[Tensor], options: Sequence[float], backend: str) -> list[Tensor]:
    return [torch.empty_like(x) for x in _shown(tensors, Options.unpack(options))]


@torch.library.custom_op("fracspike::adjoint", mutates_args=())
def _adjoint(
    tensors: Sequence[Tensor], options: Sequence[float], backend: str, wants: Sequence[bool]
) -> list[Tensor]:
    """Return the gradients in ``Moved`` and in the spikes all told; of what is not wanted, an empty tensor.

    The tensors are ``Moved, Fixed, Made, derivative, Arriving``.
    """
    moved, fixed = _split(tensors)
    made, derivative, arriving = _rest(tensors)
    used = find(backend)
    found = used.adjoint(moved, fixed, Options.unpack(options), made, derivative, arriving, list(wants))
    empty = moved.current.new_empty
    return _apart([x if want else empty(0) for x, want in zip(found, wants, strict=True)], tensors)


@_adjoint.register_fake
def _(
    tensors: Sequence[Tensor], options: Sequence[float], backend: str, wants: Sequence[bool]
) -> list[Tensor]:
    moved, _ = _split(tensors)
    like = [*moved, moved.current]
    return [x.new_empty(x.shape) if want else x.new_empty(0) for x, want in zip(like, wants, strict=True)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    tensors, ctx.options, ctx.backend = inputs
    options, moved = Options.unpack(ctx.options), Moved(*tensors[:N_MOVED])
    made = Made(*tensors[N_MOVED + N_FIXED : N_MOVED + N_FIXED + N_MADE])
    saved = _kept(made, moved, options, ctx.backend)
    ctx.trained = tensors[-1].numel() > 0
    ctx.needs = [bool(x.requires_grad) for x in tensors[:N_MOVED]]
    ctx.count = len(tensors)
    ctx.save_for_backward(*tensors[: N_MOVED + N_FIXED], *saved, tensors[-2])


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> Any:
    saved = ctx.saved_tensors
    arriving = _arriving(grads, saved[0])
    wants = [*ctx.needs, ctx.trained]
    found = _adjoint([*saved, *arriving], ctx.options, ctx.backend, wants)
    moved = [g if want else None for g, want in zip(found[:-1], ctx.needs, strict=True)]
    others = [None] * (ctx.count - N_MOVED - 1)
    return [*moved, *others, found[-1] if ctx.trained else None], None, None


_attach.register_autograd(_backward, setup_context=_keep)


def _no_second(ctx: Any, *grads: Any) -> Any:
    raise RuntimeError(NO_SECOND)


_adjoint.register_autograd(_no_second)


def _split(tensors: Sequence[Tensor]) -> tuple[Moved, Fixed]:
    return Moved(*tensors[:N_MOVED]), Fixed(*tensors[N_MOVED : N_MOVED + N_FIXED])


def _rest(tensors: Sequence[Tensor]) -> tuple[Made, Tensor, Arriving]:
    after = tensors[N_MOVED + N_FIXED :]
    return Made(*after[:N_MADE]), after[N_MADE], Arriving(*after[N_MADE + 1 :])


def _shown(tensors: Sequence[Tensor], options: Options) -> list[Tensor]:
    made = Made(*tensors[N_MOVED + N_FIXED : N_MOVED + N_FIXED + N_MADE])
    before = made.before if options.keep_before else made.before.new_empty(0)
    return [made.spikes, before, made.z, made.a, made.w]


def _apart(found: Sequence[Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return tensors of which none shares memory with another or with an input, as an operator must."""
    seen = {x.untyped_storage().data_ptr() for x in inputs if x.numel()}
    apart = []
    for x in found:
        place = x.untyped_storage().data_ptr()
        if not x.numel():
            apart.append(x.new_empty(x.shape))
        else:
            apart.append(x.clone() if place in seen else x)
            seen.add(place)
    return apart
