"""`reg_sweep.judge`: the judge, with a `Judgement` that prints itself as text, table, LaTeX, HTML or forest plot."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from reg_sweep.stats import judgement
from reg_sweep.stats.judge import judge as _judge
from reg_sweep.stats.scores import Key

Options = ParamSpec("Options")

# Each method imports the report when called: judging itself does not need it.


class Judgement(judgement.Judgement[Key]):
    """The findings for all arms against `baseline`, and the claims that share the error rate; see `stats.judgement`."""

    def __str__(self) -> str:
        """One line for each arm."""
        from reg_sweep.report.standalone import to_text

        return to_text(self)

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each arm: its verdict, difference, interval, p and counts of seeds.

        `ci_low`, `ci_high` (of level `ci_level`) and `p` are those that the verdict rests on: of the difference, or of
        equivalence or non-inferiority where only this was asked or shown. `equivalence_ci_low`, `equivalence_ci_high`,
        `p_equivalence`, `p_not_worse` and `p_divergence` are those of each test.
        """
        from reg_sweep.report.standalone import to_frame

        return to_frame(self)

    def to_latex(self) -> str:
        """A LaTeX tabular with a row for each arm, in bold if shown better or worse. It needs booktabs."""
        from reg_sweep.report.standalone import to_latex

        return to_latex(self)

    def _repr_html_(self) -> str:
        """An HTML table with a row for each arm, shown by notebooks."""
        from reg_sweep.report.standalone import to_html

        return to_html(self)

    def plot(self) -> Any:
        """The forest plot, a matplotlib Figure: `judgement.plot().savefig("forest.svg")`."""
        from reg_sweep.report.standalone import plot

        return plot(self)


def _printable(judge: Callable[Options, judgement.Judgement[Key]]) -> Callable[Options, Judgement[Key]]:
    @wraps(judge)
    def judged(*args: Options.args, **options: Options.kwargs) -> Judgement[Key]:
        return Judgement(**vars(judge(*args, **options)))

    return judged


judge = _printable(_judge)
