"""Charts that W&B exports: a row a step, and columns for each run by its name."""

import pytest

from reg_sweep.readers.catches import caught
from reg_sweep.readers.choose import Choice, choose
from reg_sweep.readers.foreign import ReadError, Wanted
from reg_sweep.readers.sources import find_foreign

LASTS = {("base", 1): 0.91, ("base", 2): 0.92, ("new", 1): 0.93, ("new", 2): 0.95}


def chart(name: str, lasts: dict[tuple[str, int], float] = LASTS, step: str = "Step") -> str:
    """The chart of three steps of runs named by a pattern such as '{arm}-{seed}', as W&B's page exports it."""
    runs = {name.format(arm=arm, seed=seed): last for (arm, seed), last in lasts.items()}
    heading = [f'"{run} - val_acc{bound}"' for run in runs for bound in ("", "__MIN", "__MAX")]
    rows = [
        [f'"{n}"', *(f'"{last - 0.1 * (2 - n):.2f}"' for last in runs.values() for _ in range(3))] for n in range(3)
    ]
    return "\n".join(",".join(cells) for cells in [[f'"{step}"', *heading], *rows])


def read(folder, text: str, **wanted: object) -> Choice:
    path = folder / "wandb_export.csv"
    path.write_text(text)
    asked = Wanted(**wanted)
    return caught(choose(find_foreign([path], asked).runs, asked))


def scores(choice: Choice) -> dict[tuple[object, ...], float]:
    return {(*r.arm.values(), r.seed): r.value for r in choice.runs}


@pytest.mark.parametrize(
    "name", ["{arm}-{seed}", "{arm}_seed{seed}", "{arm} seed={seed}", "{arm}/s{seed}", "method={arm},seed={seed}"]
)
@pytest.mark.parametrize("step", ["Step", "epoch", "Relative Time (Process)"])
def test_runs_are_told_apart_by_their_names(tmp_path, name, step):
    choice = read(tmp_path, chart(name, step=step))
    assert scores(choice) == LASTS
    assert choice.runs[0].run.history["val_acc"].values.tolist() == pytest.approx([0.71, 0.81, 0.91])
    assert not choice.notes


def test_two_runs_of_one_name_are_repeats_and_an_empty_cell_is_no_step(tmp_path):
    text = chart("{arm}-{seed}").replace("new-2 - ", "new-1 - ")
    text = text.replace('"0.92","0.92","0.92"', '"","",""')
    choice = read(tmp_path, text)
    assert scores(choice) == pytest.approx({("base", 1): 0.91, ("base", 2): 0.82, ("new", 1): 0.94})
    assert choice.notes[0].startswith("2 runs repeat an arm and a seed")


def test_names_that_tell_no_seed_are_refused_with_what_to_do(tmp_path):
    names = {("brisk-sun", 11): 0.9, ("dark-oak", 12): 0.8, ("calm-sky", 13): 0.7}
    with pytest.raises(ReadError, match="must give arm and seed, such as base-1, got 'brisk-sun-11': rename the runs"):
        read(tmp_path, chart("{arm}-{seed}", names))
    with pytest.raises(ReadError, match="must give arm and seed"):
        read(tmp_path, chart("method: {arm}", {("base", 0): 0.9, ("new", 0): 0.8}))
    assert len(scores(read(tmp_path, chart("{arm}-{seed}", names), seed="none"))) == 3
