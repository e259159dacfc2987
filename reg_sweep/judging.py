"""`reg_sweep.judge`: the judge, and a judgement that prints itself, as text, a table, LaTeX, HTML or a forest plot."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

from reg_sweep.stats import judgement
from reg_sweep.stats.judge import judge as _judge
from reg_sweep.stats.scores import Key

Options = ParamSpec("Options")

# The report is imported when a form is asked for: judging needs no page and no figure.


class Judgement(judgement.Judgement[Key]):
    """The findings for all arms against `baseline`, and what the error was split over; see `stats.judgement`."""

    def __str__(self) -> str:
        """A line for each arm."""
        from reg_sweep.report.standalone import to_text

        return to_text(self)

    def to_frame(self) -> Any:
        """A pandas DataFrame with a row for each arm: its verdict, difference, interval, p and counts of seeds."""
        from reg_sweep.report.standalone import to_frame

        return to_frame(self)

    def to_latex(self) -> str:
        """A LaTeX tabular with a row for each arm, bold where better or worse was shown. It needs booktabs."""
        from reg_sweep.report.standalone import to_latex

        return to_latex(self)

    def _repr_html_(self) -> str:
        """A table with a row for each arm, which a notebook shows."""
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
