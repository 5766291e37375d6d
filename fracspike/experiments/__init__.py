"""Reproductions of published work, one file and one registry line each."""

from __future__ import annotations

import importlib

from fracspike.solvers import checks

from .report import Experiment, Row, Run

#: name -> module that holds it as ``EXPERIMENT``; imported only when asked for
MODULES = {
    "adaptation": "fracspike.experiments.adaptation",
    "fsnn-theory": "fracspike.experiments.fsnn_theory",
    "spoken-digits": "fracspike.experiments.spoken_digits",
    "binary-adding": "fracspike.experiments.binary_adding",
    "fsnn-graph": "fracspike.experiments.fsnn_graph",
    "surrogates": "fracspike.experiments.surrogates",
    "teka2014": "fracspike.experiments.teka2014",
}


def get(name: str) -> Experiment:
    """Return the experiment called ``name``.

    Raises:
        ValueError: with the known names, if there is none.

    >>> get("teka2014").source.split(",")[0]
    'Teka'
    """
    checks.one_of("experiment", name, MODULES)
    experiment: Experiment = importlib.import_module(MODULES[name]).EXPERIMENT
    return experiment


__all__ = ["MODULES", "Experiment", "Row", "Run", "get"]
