"""How a point of a grid is written into an Optuna study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .grid import Grid, Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

Key = tuple[tuple[str, Any], ...]


def key(point: Mapping[str, Any]) -> Key:
    """Return what tells a point from every other, whatever the order of its values.

    >>> key({"seed": 0, "alpha": 0.5}) == key({"alpha": 0.5, "seed": 0})
    True
    """
    return tuple(sorted(point.items()))


def parameters(
    storage: BaseStorage, study: int, grid: Grid, point: Point, notes: Mapping[str, Any]
) -> FrozenTrial:
    """Return a running trial of a point, to be created in a study.

    Optuna allows the choices of a parameter only once in a study. Numbers are therefore given as ranges,
    which may grow; an axis whose earlier trials had other choices is left to the notes, which hold all.
    """
    from optuna.trial import TrialState, create_trial

    before: dict[str, BaseDistribution] = {}
    for trial in storage.get_all_trials(study, deepcopy=False):
        before = {**trial.distributions, **before}
    ours = {axis: _distribution(values) for axis, values in grid.axes.items()}
    fitting = {axis: kind for axis, kind in ours.items() if axis not in before or _fits(before[axis], kind)}
    return create_trial(
        state=TrialState.RUNNING,
        params={axis: point[axis] for axis in fitting},
        distributions=fitting,
        user_attrs=dict(notes),
    )


def _distribution(values: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if all(type(value) is float for value in values):
        return FloatDistribution(min(values), max(values))
    if all(type(value) is int for value in values):
        return IntDistribution(min(values), max(values))
    return CategoricalDistribution(list(values))


def _fits(before: BaseDistribution, kind: BaseDistribution) -> bool:
    from optuna.distributions import check_distribution_compatibility

    try:
        check_distribution_compatibility(before, kind)
    except ValueError:
        return False
    return True
