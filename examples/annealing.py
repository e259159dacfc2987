"""Which cooling schedule finds shorter tours? A Hydra app without a network, with seeds added until each is decided.

python examples/annealing.py -m cooling=constant,linear,geometric hydra.sweeper.report=true

It runs simulated annealing on a round trip through 40 random cities. The seed draws the cities and the moves, so the
arms are compared on the same maps. The study stops each arm as soon as it is decided, and writes its report to the
folder report/ in its own folder.
"""

import math
import random

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

N_CITIES = 40
Point = tuple[float, float]

ConfigStore.instance().store(
    name="annealing",
    node={
        "defaults": ["_self_", {"override hydra/sweeper": "optuna_study"}],
        "cooling": "constant",
        "start": 0.1,
        "n_steps": 20_000,
        "seed": 0,
        "objective": "tour_length",
        "hydra": {"sweeper": {"until_verdict": True, "design": {"max_seeds": 12, "margin": 0.05}}},
    },
)


def temperature(cooling: str, start: float, progress: float) -> float:
    """Temperature after this share of all steps: constant, linear down to 0, or geometric down to a thousandth."""
    return {"constant": start, "linear": start * (1 - progress), "geometric": start * 0.001**progress}[cooling]


def length(tour: list[Point]) -> float:
    """Length of a round trip."""
    return sum(math.dist(a, b) for a, b in zip(tour, tour[1:] + tour[:1], strict=True))


@hydra.main(version_base="1.3", config_path=None, config_name="annealing")
def main(config: DictConfig) -> float:
    """Length of the final tour, in units of the map's side."""
    draw = random.Random(config.seed)
    tour = [(draw.random(), draw.random()) for _ in range(N_CITIES)]
    n_steps = config.n_steps
    for step in range(n_steps):
        i, j = sorted(draw.sample(range(N_CITIES), 2))
        a, b, c, d = tour[i - 1], tour[i], tour[j], tour[(j + 1) % N_CITIES]  # the move reverses the part from b to c
        longer = (
            math.dist(a, c) + math.dist(b, d) - math.dist(a, b) - math.dist(c, d) if (i, j) != (0, N_CITIES - 1) else 0
        )
        heat = temperature(config.cooling, config.start, step / n_steps)
        if longer <= 0 or draw.random() < math.exp(-longer / max(heat, 1e-12)):
            tour[i : j + 1] = reversed(tour[i : j + 1])
    return length(tour)


if __name__ == "__main__":
    main()
