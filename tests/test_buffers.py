"""Memory that is used again: never while somebody holds it, and not without bound."""

from __future__ import annotations

import gc

import pytest
import torch

from fracspike import FractionalLIF
from fracspike.neurons.backends.numba import buffers

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


def test_a_larger_one_will_do(spare: buffers.Spare) -> None:
    like = torch.empty(0)
    where = buffers.empty((300, 1000), like).data_ptr()
    gc.collect()
    assert buffers.empty((200, 1000), like).data_ptr() == where
    gc.collect()
    assert buffers.empty((1000, 1000), like).data_ptr() != where


@pytest.mark.parametrize("lengths", [range(100, 3000, 50), range(3000, 100, -50)], ids=["rise", "fall"])
def test_many_lengths_keep_no_more_than_the_longest_needs(lengths: range) -> None:
    """In use and kept together, whatever the order: three sequences at a time."""
    spare = buffers.Spare(limit=1 << 40)
    for length in lengths:
        size = 1000 * length
        rooms = [spare.take(size) for _ in range(3)]
        assert spare.size + sum(map(len, rooms)) <= 2 * 3 * 1000 * max(lengths)
        for room in rooms:
            spare.give(room)
    assert spare.size <= 3 * 1000 * max(lengths)


def test_one_size_is_found_again_beside_others(spare: buffers.Spare) -> None:
    """Two layers of different sizes in turn: nothing is asked of the system after the first pass."""
    sizes = [1 << 20, 1 << 20, 3 << 20, 5 << 20]
    seen: set[int] = set()
    for turn in range(4):
        rooms = [spare.take(size) for size in sizes]
        found = {id(room) for room in rooms}
        assert turn == 0 or found == seen
        seen = found
        for room in rooms:
            spare.give(room)
        del rooms, room
