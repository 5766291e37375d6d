"""Time forward and backward of every surrogate against SpikingJelly's and snnTorch's same family.

Run ``python benchmarks/surrogates.py``.  The peers are optional; each is measured in the same run, turn by
turn with ours, and the ratio is the median over rounds of (ours / theirs): below 1, ours is faster.  One
thread by default: with several, waiting for a busy core outweighs the arithmetic.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from fracspike import surrogate

PEERS = {"spikingjelly": "spikingjelly.activation_based.surrogate", "snntorch": "snntorch.surrogate"}


def seconds(function: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> float:
    """Return the time of one forward and one backward pass."""
    x.grad = None
    start = time.perf_counter()
    function(x).backward(gradient)
    return time.perf_counter() - start


def peer_module(name: str) -> ModuleType | None:
    """Import a peer's surrogates, if they are installed."""
    try:
        return importlib.import_module(PEERS[name])
    except ImportError:
        return None


def rows(elements: int, rounds: int) -> list[tuple[str, float, dict[str, float]]]:
    """Return per family its name, our milliseconds, and the ratio to each peer's name."""
    torch.manual_seed(0)
    x = torch.randn(elements, requires_grad=True)
    gradient = torch.randn(elements)
    modules = {name: peer_module(name) for name in PEERS}
    result = []
    for family in surrogate.names():
        pairs: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {}
        for alias, canonical in surrogate.aliases().items():
            library, _, theirs = alias.partition(".")
            module = modules.get(library)
            # snnTorch's LSO raises, and its triangular is another function.
            if canonical == family and module and alias not in ("snntorch.LSO", "snntorch.triangular"):
                pairs[alias] = surrogate.get(alias), getattr(module, theirs)()
        own = surrogate.get(family)
        for function in (own, *(f for pair in pairs.values() for f in pair)):
            seconds(function, x, gradient)
        mine = sorted(seconds(own, x, gradient) for _ in range(rounds))[rounds // 2]
        ratios = {}
        for alias, (ours, theirs_function) in pairs.items():
            samples = sorted(
                seconds(ours, x, gradient) / seconds(theirs_function, x, gradient) for _ in range(rounds)
            )
            ratios[alias] = samples[rounds // 2]
        result.append((family, 1e3 * mine, ratios))
    return result


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=int, default=10**6)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    missing = [name for name in PEERS if peer_module(name) is None]
    print(f"{arguments.elements} elements, float32, torch {torch.__version__}, threads: {arguments.threads}")
    if missing:
        print(f"not installed, hence not compared: {', '.join(missing)}")
    print(f"{'family':24}{'ms':>8}  ratio of time, ours / theirs")
    for family, milliseconds, ratios in rows(arguments.elements, arguments.rounds):
        compared = "  ".join(f"{alias} {ratio:.2f}" for alias, ratio in ratios.items())
        print(f"{family:24}{milliseconds:8.2f}  {compared}")


if __name__ == "__main__":
    main()
