"""The commands that train arms on more seeds: a grid where one can be, torchrun seed after seed."""

from types import SimpleNamespace

from reg_sweep.comparison.commands import more_seeds


def arm(command: str, norm: str = "bn", l1: float = 0.0) -> SimpleNamespace:
    config = {"norm": {"name": norm}, "l1": l1, "l2": 0.0}
    return SimpleNamespace(replicates=[SimpleNamespace(command=command)], config=config)


def test_arms_that_fill_a_grid_are_one_command():
    arms = [arm("python -m reg_sweep.train seed=1"), arm("python -m reg_sweep.train l1=0.001 seed=1 name=a", l1=0.001)]
    assert more_seeds(arms, [2, 3]) == ["python -m reg_sweep.train l1=0,0.001 seed=2,3 -m"]


def test_torchrun_which_takes_no_grid_is_given_seed_after_seed():
    start = "torchrun --nproc-per-node 2 -m reg_sweep.train"
    arms = [arm(f"{start} norm=bn seed=1"), arm(f"{start} norm=gn seed=1", "gn"), arm("python -m reg_sweep.train l1=1")]
    assert more_seeds(arms, [2, 3]) == [
        f"for seed in 2 3; do {start} norm=bn seed=$seed; done",
        f"for seed in 2 3; do {start} norm=gn seed=$seed; done",
        "python -m reg_sweep.train l1=1 seed=2,3 -m",
    ]
    assert more_seeds(arms[:2], [2])[0] == f"for seed in 2; do {start} norm=bn seed=$seed; done"
