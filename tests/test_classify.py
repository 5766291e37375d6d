"""What is measured of a network that names images, counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fracspike.training import Images, Machine, classify

SCORES = torch.tensor([[4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, 0.0, 0.0], [0.0, 4.0, 0.0], [4.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 0, 1, 1, 0])  # the third class is neither there nor answered


class Told(nn.Module):
    """Answers by what stands in the input."""

    def forward(self, x: Tensor) -> Tensor:
        return x[0]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine("cpu")


@pytest.mark.parametrize("piece", [2, 3, 5, 100])
def test_rows_are_true_classes_and_columns_answers(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, piece: int
) -> None:
    monkeypatch.setattr(classify, "PIECE", piece)
    found = classify.confusion(Told(), Images(SCORES[None], LABELS), 3, machine)
    assert found.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("piece", [2, 3, 5, 100])
def test_loss_and_accuracy_do_not_depend_on_the_pieces(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, piece: int
) -> None:
    monkeypatch.setattr(classify, "PIECE", piece)
    measure = object.__new__(classify.Measure)
    measure.machine, measure.parts = machine, {"training": Images(SCORES[None], LABELS)}
    found = measure(Told())
    assert found["training_accuracy"] == 0.6
    assert found["training_loss"] == pytest.approx(cross_entropy(SCORES, LABELS).item(), rel=1e-6)


def test_one_process_alone_agrees_with_itself(machine: Machine) -> None:
    values = [torch.arange(3.0)]
    machine.agree(values)
    machine.barrier()
    assert values[0].tolist() == [0, 1, 2]
    assert machine.lead(lambda: 5) == machine.together(lambda: 5) == machine.broadcast(5) == 5
    with pytest.raises(OSError, match="full"):
        machine.fail_together(OSError("full"))
