"""Memory that is used again: never while somebody holds it, and not without bound."""

from __future__ import annotations

import gc

import pytest
import torch

from fracspike import FractionalLIF
from fracspike.neurons.native import buffers

SHAPE = (300, 1000)  # more than a megabyte


@pytest.fixture
def spare(monkeypatch: pytest.MonkeyPatch) -> buffers.Spare:
    fresh = buffers.Spare(limit=1 << 24)
    monkeypatch.setattr(buffers, "spare", fresh)
    return fresh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_has_died_is_used_again(spare: buffers.Spare, dtype: torch.dtype) -> None:
    like = torch.empty(0, dtype=dtype)
    first = buffers.empty(SHAPE, like)
    assert (first.shape, first.dtype) == (SHAPE, dtype)
    where = first.data_ptr()
    second = buffers.empty(SHAPE, like)
    assert second.data_ptr() != where
    del first
    gc.collect()
    assert buffers.empty(SHAPE, like).data_ptr() == where


def test_views_and_graphs_hold_it(spare: buffers.Spare) -> None:
    like = torch.empty(0)
    for hold in (lambda x: x[5:7], lambda x: x.reshape(-1), lambda x: x.numpy(), lambda x: x.detach()):
        tensor = buffers.empty(SHAPE, like)
        where, held = tensor.data_ptr(), hold(tensor)
        del tensor
        gc.collect()
        assert buffers.empty(SHAPE, like).data_ptr() != where
        del held


def test_no_more_than_the_limit_is_kept(spare: buffers.Spare) -> None:
    tensors = [buffers.empty(SHAPE, torch.empty(0)) for _ in range(20)]
    assert spare.size == 0
    tensors.clear()
    gc.collect()
    assert 0 < spare.size <= spare.limit
    spare.clear()
    assert spare.size == 0


def test_a_layer_keeps_its_results_while_it_goes_on(spare: buffers.Spare) -> None:
    """Spikes and gradients of one call are the same after others of the same size."""
    layer = FractionalLIF(0.6, surrogate="atan", learn=("alpha",))
    generator = torch.Generator().manual_seed(0)
    currents = [3 * torch.rand(*SHAPE, generator=generator) for _ in range(4)]
    kept = []
    for current in currents:
        drive = current.clone().requires_grad_()
        spikes = layer(drive)
        (spikes * current).sum().backward(retain_graph=True)
        kept.append((spikes, spikes.detach().clone(), drive, drive.grad.clone()))
    for spikes, copy, drive, gradient in kept:
        assert torch.equal(spikes, copy)
        drive.grad = None
        (spikes * drive.detach()).sum().backward()
        assert torch.equal(drive.grad, gradient)
