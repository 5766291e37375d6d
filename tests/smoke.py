"""Run by CI from an installed wheel, outside the checkout: the parts are there and work together."""

import importlib.resources
from pathlib import Path

import torch

import fracspike
from fracspike.experiments import teka2014
from fracspike.solvers import fdeint, mittag_leffler

installed = Path(fracspike.__file__).parent
assert "site-packages" in installed.parts, f"not the installed wheel: {installed}"
assert (importlib.resources.files("fracspike") / "py.typed").is_file()

t = torch.linspace(0, 1, 101, dtype=torch.float64)
y = fdeint(lambda t, y: -y, torch.ones((), dtype=torch.float64), t, 0.5)
exact = mittag_leffler(torch.tensor(-1.0, dtype=torch.float64), 0.5)
assert abs(y[-1] - exact) < 2e-3

net = torch.nn.Sequential(torch.nn.Linear(3, 4), fracspike.FractionalLIF(0.7, surrogate="atan"))
net(torch.rand(5, 2, 3)).sum().backward()
assert teka2014.simulate(0.6, 3.0, duration=30.0).tolist() == [7.8, 22.5]
