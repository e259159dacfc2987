"""Tables of scores as people write them: which columns are seeds, scores and settings, and what is refused."""

from pathlib import Path

import pytest

from reg_sweep.readers.catches import caught
from reg_sweep.readers.choose import Choice, choose
from reg_sweep.readers.run import Wanted
from reg_sweep.readers.sources import find_foreign

ROWS = [("base", 1, 0.91), ("base", 2, 0.92), ("new", 1, 0.93), ("new", 2, 0.95)]
LONG = "method,seed,val_acc\nbase,1,0.91\nbase,2,0.92\nnew,1,0.93\nnew,2,0.95\n"


def read(folder: Path, text: str | bytes, name: str = "it.csv", **wanted: object) -> Choice:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    asked = Wanted(**wanted)
    return caught(choose(find_foreign([path], asked).runs, asked))


def scores(choice: Choice) -> dict[tuple[object, ...], float]:
    return {(*r.arm.values(), r.seed): r.value for r in choice.runs}


EXPECTED = {(method, seed): value for method, seed, value in ROWS}


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        LONG.replace(",", "\t"),
        LONG.replace(",", ";").replace(".", ","),
        LONG.replace("\n", "\r\n"),
        "\ufeff" + LONG,
        LONG.encode("utf-16"),
        "method,val_acc_1,val_acc_2\nbase,0.91,0.92\nnew,0.93,0.95\n",
        "epoch,method,seed,lr,val_acc\n"
        + "".join(f"{e},{m},{s},{0.1 / e},{v - (3 - e) / 8}\n" for m, s, v in ROWS for e in (1, 2, 3)),
        '{"method": "base", "seed": 1, "val_acc": 0.91}\n{"method": "base", "seed": 2, "val_acc": 0.92}\n'
        '{"method": "new", "seed": 1, "val_acc": 0.93}\n{"method": "new", "seed": 2, "val_acc": 0.95}\n{"meth',
        '{"method": ["base", "base", "new", "new"], "seed": [1, 2, 1, 2], "val_acc": [0.91, 0.92, 0.93, 0.95]}',
    ],
    ids=["csv", "tsv", "semicolons", "dos", "bom", "utf16", "wide", "epochs", "jsonl", "columns"],
)
def test_the_same_scores_are_read_however_they_are_written(tmp_path, text):
    found = read(tmp_path, text)
    assert scores(found) == EXPECTED
    assert found.arm_keys == ["method"]
    assert (found.score.name, found.score.higher_is_better, found.score.unit) == ("val_acc", True, "share")
    assert "seed: seed" in found.said
    assert not found.problems
