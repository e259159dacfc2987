"""Scores over seeds from mappings and data frames; lost and outlying seeds."""

import math

import numpy as np
import pytest
from draws import rng
from scipy.stats import binomtest

from reg_sweep.stats.judge import judge
from reg_sweep.stats.scores import failure_rate_bound, stray_seeds

SCORES = {"bn": {1: 0.95, 2: 0.94, 3: 0.96}, "gbn": {1: 0.96, 2: 0.955, 3: math.nan}}
ROWS = [(arm, seed, score) for arm, of_seeds in SCORES.items() for seed, score in of_seeds.items()]


class Frame:
    """A data frame of no library: columns by name, as pandas and polars give them."""

    def __init__(self, columns):
        self.columns, self._cells = list(columns), columns

    def __getitem__(self, name):
        return self._cells[name]


def long(**changed):
    columns = dict(zip(("method", "seed", "acc"), map(list, zip(*ROWS, strict=True)), strict=True))
    return Frame(columns | changed)


def test_a_long_frame_gives_the_judgement_of_its_mapping():
    assert str(judge(long(), "bn", score="acc")) == str(judge(SCORES, "bn"))
    two = judge(long(lr=[0.1] * 6), ("bn", 0.1), score="acc", arm=["method", "lr"])
    assert list(two.arms) == [("gbn", 0.1)]
    assert two.arms["gbn", 0.1].difference == judge(SCORES, "bn").arms["gbn"].difference
    assert two.arms["gbn", 0.1].failed == (3,)  # a null score


def test_a_wide_frame_lacks_the_seed_of_an_empty_cell_and_seeds_may_be_the_text_that_json_makes_of_them():
    wide = Frame({"seed": [1.0, 2.0, 3.0], "bn": list(SCORES["bn"].values()), "gbn": [0.96, 0.955, None]})
    finding = judge(wide, "bn").arms["gbn"]
    assert (finding.missing, finding.failed) == ((3,), ())
    text = {arm: {str(seed): score for seed, score in of_seeds.items()} for arm, of_seeds in SCORES.items()}
    assert judge(text, "bn").seeds == (1, 2, 3)


def test_a_pandas_frame_is_read_by_its_columns_or_its_index():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(ROWS, columns=["method", "seed", "acc"])
    whole = str(judge(SCORES, "bn"))
    assert str(judge(frame, "bn", score="acc")) == whole
    assert str(judge(frame.set_index(["method", "seed"]), "bn", score="acc", arm="method")) == whole
    wide = frame.pivot(index="seed", columns="method", values="acc")
    assert judge(wide, "bn").arms["gbn"].difference == judge(SCORES, "bn").arms["gbn"].difference


def test_a_lazy_frame_is_collected_and_pyarrows_cells_are_read():
    class Lazy:
        def collect(self):
            return long()

    class Cells(list):
        def to_pylist(self):
            return self[0]

    arrow = Frame({name: Cells([long()[name]]) for name in long().columns})
    arrow.column_names, arrow.columns = arrow.columns, ["cells"]
    for frame in (Lazy(), arrow):
        assert str(judge(frame, "bn", score="acc")) == str(judge(SCORES, "bn"))


@pytest.mark.parametrize(
    ("scores", "settings", "message"),
    [
        ([0.9], {}, "scores must be a mapping (arm -> seed -> score) or a data frame, got list"),
        ({"bn": [0.9]}, {}, "scores of 'bn' must be a mapping, such as {1: 0.98, 2: 0.97} by seed, got list"),
        ({"bn": {1: "-"}}, {}, "'bn', seed 1: score must be a number, got '-'"),
        ({"bn": {1.5: 0.9}}, {}, "'bn': seed must be a whole number, got 1.5"),
        ({"bn": {1: 0.9, "1": 0.8}}, {}, "'bn' must have one score for each seed, got two for seed 1"),
        (long(), {"score": "loss"}, "column must be one of the columns (method, seed, acc), got 'loss'"),
        (long(), {"score": "acc", "seed": "run"}, "arm must name the columns that make an arm, got none: there are m"),
        (long(), {"score": "acc", "arm": "lr"}, "column must be one of the columns (method, seed, acc), got 'lr'"),
        (long(method=["bn"] * 6), {"score": "acc"}, "rows must be one for each arm and seed, got 1 and 4 for 'bn' and"),
        (long(method=[None] * 6), {"score": "acc"}, "row 1: method must name an arm, got none"),
        (long(seed=[True] * 6), {"score": "acc"}, "row 1: seed must be a whole number, got True"),
        (Frame({"bn": [0.9]}), {}, "seed must be one of the columns (bn), got 'seed'"),
    ],
)
def test_what_is_no_table_of_scores_is_refused_in_one_line(scores, settings, message):
    with pytest.raises(ValueError, match=r"^.*$") as error:
        judge(scores, "bn", **settings)
    assert str(error.value).startswith(message)


class TestFailureRateBound:
    @pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 8), (1, 8), (5, 20), (19, 20), (20, 20)])
    def test_is_the_exact_one_sided_bound(self, k: int, n: int) -> None:
        expected = binomtest(k, n, alternative="less").proportion_ci(0.95, method="exact").high
        assert failure_rate_bound(k, n) == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("arguments", "message"), [((0, 0), "and n at least 1"), ((3, 2), "got 3 of 2"), ((0, 2, 5), "level must")]
    )
    def test_names_what_is_wrong(self, arguments: tuple, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            failure_rate_bound(*arguments)


class TestStraySeeds:
    @pytest.mark.parametrize("n", [5, 8, 20])
    def test_are_rare_in_normal_noise(self, n: int) -> None:
        false = np.mean([bool(stray_seeds(x)) for x in rng().normal(size=(2000, n))])
        assert false <= 0.015 + 2 * math.sqrt(0.015 / 2000)

    @pytest.mark.parametrize(("n", "collapsed"), [(5, {2}), (8, {0, 3}), (20, {1, 5, 6})])
    def test_are_the_seeds_that_collapsed_however_many_up_to_a_quarter(self, n: int, collapsed: set) -> None:
        x = rng().normal(0.99, 0.001, n)
        x[list(collapsed)] = 0.9
        assert set(stray_seeds(x)) == collapsed

    def test_are_none_where_one_image_more_or_fewer_is_the_smallest_step(self) -> None:
        x = [0.995, 0.995, 0.995, 0.995, 0.994]
        assert stray_seeds(x) == (4,)
        assert stray_seeds(x, resolution=0.001) == ()
        assert stray_seeds([*x[:4], 0.9], resolution=0.001) == (4,)

    @pytest.mark.parametrize("x", [[1.0] * 8, [0.0, 0.0, 0.0, 9.0]])
    def test_are_none_without_spread_or_of_fewer_than_five(self, x: list[float]) -> None:
        assert stray_seeds(x) == ()
