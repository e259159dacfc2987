"""Tables of scores as people write them: which columns are seeds, scores and settings, and what is refused."""

from pathlib import Path

import pytest

from reg_sweep.comparison.labels import arm_labels
from reg_sweep.readers.catches import caught
from reg_sweep.readers.choose import Choice, choose
from reg_sweep.readers.foreign import ReadError, Wanted
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


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("seed,base,new\n1,0.91,0.93\n2,0.92,0.95\n", {"score": "acc"}),
        ("seed,base,new\n1,0.91,0.93\n2,0.92,0.95\n", {"score": "acc", "arms": ("arm",), "seed": "seed"}),
        ("seed,acc_base,acc_new,loss_base\n1,0.91,0.93,7\n2,0.92,0.95,8\n", {"score": "acc"}),
        (",base,new\n1,0.91,0.93\n2,0.92,0.95\n", {"score": "acc", "seed": "unnamed: 0"}),
        ('{"seed": [1, 2], "base": [0.91, 0.92], "new": [0.93, 0.95]}', {"score": "acc"}),
    ],
)
def test_a_table_may_have_a_column_for_each_arm(tmp_path, text, wanted):
    found = read(tmp_path, text, **wanted)
    assert scores(found) == EXPECTED
    assert (found.score.name, found.arm_keys) == ("acc", ["arm"])


def test_a_column_for_each_arm_without_seeds_holds_repeats(tmp_path):
    found = read(tmp_path, "base,new\n0.91,0.93\n0.92,\n", score="acc", seed="none")
    assert sorted((r.arm["arm"], r.value) for r in found.runs) == [("base", 0.91), ("base", 0.92), ("new", 0.93)]
    assert found.is_unpaired


def test_columns_of_seeds_stay_seeds_where_the_score_is_named(tmp_path):
    assert scores(read(tmp_path, "method,acc_1,acc_2\nbase,0.91,0.92\nnew,0.93,0.95\n", score="acc")) == EXPECTED


@pytest.mark.parametrize("text", ["seed,lr,quality\n1,0.1,3\n2,0.2,4\n", "seed,quality\n1,3\n2,4\n"])
def test_settings_and_a_single_score_are_no_columns_of_arms(tmp_path, text):
    assert read(tmp_path, text, score="quality", higher_is_better=True).arm_keys in (["lr"], [])


# ---- what is refused, in one line that says what to type


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LONG.replace("0.93", "oops"), r"line 4: column val_acc must hold numbers, got 'oops'"),
        (LONG.replace("val_acc", "quality"), r"got quality: name the score and its direction, such as --score NAME"),
        ("method,val_acc\na,0.9\na,0.8\n", r"a setting must name the seed of its runs, got method: name it with --"),
        (LONG.replace("0.93", "93").replace("0.95", "95"), r"0.91 in .*line 2 and 93 in .*line 4: use one of the two"),
        ("m;seed;reward\na;1;1,234\nb;1;1,300\n", r"got '1,234' in column reward, which can be read in two ways"),
        ("seed,base,new\n1,0.9,0.8\n2,0.9,0.8\n", r"a column for each arm.* as --score accuracy:max or --score loss:"),
        ("base,new\n0.9,0.8\n0.9,0.8\n", r"a column for each arm.*--score loss:min, and --seed none"),
        ("m,1,2\na,0.9,0.8\nb,0.7,0.6\n", r"nothing says what they score: name it and its direction"),
        (LONG.replace("new,1,0.93", "new,1,0.93,4"), r"line 4: must have at most 3 cells, one for each name"),
        ("<!doctype html><p>404</p>", r"got a page of HTML or XML: export the table itself"),
        ("1,2\n3,4\n", r"its first row must name the columns, got only numbers"),
        ("method,seed,val_acc\n", r"must hold rows below its heading, got none"),
        ("", r"must hold a table, got no row"),
        (b"\0\1\2" * 99, r"got binary data"),
        (b"PAR1 and nothing more", r"[Pp]arquet"),
        ('{"a": 1}\nnonsense\n{"a": 2}\n', r"line 2: must be JSON, got 'nonsense'"),
    ],
)
def test_what_cant_be_read_is_one_line(tmp_path, text, said):
    with pytest.raises(ReadError, match=said) as error:
        read(tmp_path, text)
    assert str(error.value).isprintable()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"score": "nope"}, "--score must name a metric of the runs, got 'nope': they have val_acc"),
        ({"seed": "nope"}, "--seed must name a column, got 'nope': it has method, seed, val_acc"),
        ({"arms": ("nope",)}, "--arm must name a column, got 'nope'"),
        ({"at": "nope"}, "--at must be last, best:METRIC or step=N, got 'nope'"),
        ({"at": "step=3"}, "--at must be last where val_acc has no history"),
        ({"source": "nope"}, r"--source must be one of the kinds that were found \(table\), got 'nope'"),
    ],
)
def test_a_name_that_is_nowhere_is_refused_with_those_that_are(tmp_path, wanted, said):
    with pytest.raises(ReadError, match=said):
        read(tmp_path, LONG, **wanted)


# ---- numbers, and what is no setting


@pytest.mark.parametrize("cell", ["0.93", "9.3e-1", " 0.93 ", '"0.93"', "+0.93"])
def test_numbers_are_read_as_people_write_them(tmp_path, cell):
    assert scores(read(tmp_path, LONG.replace("0.93", cell)))["new", 1] == 0.93


def test_percent_signs_and_thousands_are_read(tmp_path):
    text = 'm,seed,accuracy,reward\nbase,1,91%,"1,234.5"\nbase,2,92%,"1,300"\nnew,1,93%,"2,000"\nnew,2,95%,"2,100"\n'
    assert read(tmp_path, text).score.unit == "percent"
    assert scores(read(tmp_path, text, score="reward"))["base", 1] == 1234.5


def test_times_paths_hosts_and_measurements_make_no_arm(tmp_path):
    rows = [f"{m},{s},{v},{s * 7.25},host{s},/tmp/{m}{s},{v * 3 + s}" for m, s, v in ROWS]
    found = read(tmp_path, "\n".join(["method,seed,val_acc,runtime,host,path,throughput2", *rows]))
    assert found.arm_keys == ["method"]
    assert scores(found) == EXPECTED


@pytest.mark.parametrize("word", ["none", "None", "null", "na", "n/a", "-", "?"])
def test_an_arm_of_any_name_is_an_arm_and_only_an_empty_cell_is_missing(tmp_path, word):
    found = read(tmp_path, LONG.replace("base", word))
    assert scores(found) == {(word if m == "base" else m, s): v for (m, s), v in EXPECTED.items()}
    assert {r.arm["method"] for r in read(tmp_path, LONG.replace("base", "")).runs} == {None, "new"}
    assert scores(read(tmp_path, LONG.replace("0.93", word)))["new", 2] == 0.95  # among numbers it is a missing one
    assert arm_labels([{"method": None}, {"method": word}]) == ["no method", word]


@pytest.mark.parametrize("word", ["none", "-"])
def test_a_score_that_no_run_has_is_no_setting_and_is_named(tmp_path, word):
    text = f"method,seed,val_acc,test_acc\na,1,0.9,{word}\na,2,0.8,{word}\nb,1,0.7,{word}\nb,2,0.75,{word}\n"
    assert read(tmp_path, text).arm_keys == ["method"]
    with pytest.raises(ReadError, match=r"column test_acc must hold numbers, got only empty cells"):
        read(tmp_path, text, score="test_acc")
    wide = f"method,val_acc_1,val_acc_2,val_acc_3\na,0.9,0.8,{word}\nb,0.7,0.6,{word}\n"
    assert scores(read(tmp_path, wide)) == scores(read(tmp_path, wide.replace(word, "")))


# ---- what strangers' runs get wrong


def histories(values: dict[tuple[str, int], list[float]]) -> str:
    """A row for each epoch of runs by method and seed."""
    rows = [f"{m},{s},{epoch},{x}\n" for (m, s), of_run in values.items() for epoch, x in enumerate(of_run, 1)]
    return "method,seed,epoch,val_acc\n" + "".join(rows)


def test_two_seeds_of_one_history_are_one_run(tmp_path):
    found = read(tmp_path, histories({("a", 1): [0.1, 0.2], ("a", 2): [0.1, 0.2], ("b", 1): [0.3, 0.4]}))
    assert [(r.arm["method"], r.seed) for r in found.runs] == [("a", 1), ("b", 1)]
    assert found.notes[0].startswith("Identical to the last digit: seeds 1 and 2 of method=a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (histories({("a", 1): [0.1, 0.2], ("b", 1): [0.1, 0.2]}), "method=a and method=b are identical to the last"),
        (histories({("a", 1): [0.1, 0.2, 0.3], ("b", 1): [0.1, 0.4]}), "their last step is 2 to 3"),
        (LONG.replace("val_acc", "best_test_acc"), "Optimistic: by its name, best_test_acc is the maximum"),
    ],
    ids=["arms that do not differ", "runs of different length", "a maximum over epochs"],
)
def test_what_strangers_runs_get_wrong_is_named(tmp_path, text, said):
    assert said in read(tmp_path, text).notes[0]


def test_repeats_of_a_seed_are_averaged_and_count_as_one(tmp_path):
    found = read(tmp_path, LONG + "base,1,0.93\n")
    assert scores(found)["base", 1] == pytest.approx(0.92)
    assert len(found.runs) == 4
    assert "2 runs repeat an arm and a seed, such as method=base, seed 1" in found.notes[0]


def test_arms_without_a_seed_in_common_are_not_paired(tmp_path):
    found = read(tmp_path, LONG.replace("new,1", "new,3").replace("new,2", "new,4"))
    assert found.is_unpaired
    (note,) = found.notes
    assert note.startswith("Not paired: the arms share no seed, so arms are compared by Welch's test, which needs more")


@pytest.mark.parametrize("cell", ["", "-", "nan", "inf", "n/a"])
def test_a_score_that_is_no_finite_number_is_of_a_lost_run(tmp_path, cell):
    found = read(tmp_path, LONG.replace("0.95", cell))
    assert [r.status for r in found.runs] == ["complete"] * 3 + ["diverged" if cell == "inf" else "failed"]


def test_a_run_whose_epochs_have_no_score_failed(tmp_path):
    found = read(tmp_path, histories({(m, s): [v - 0.1, v] for m, s, v in ROWS}) + "new,3,1,\n")
    assert [(r.seed, r.status) for r in found.runs] == [(1, "complete"), (2, "complete")] * 2 + [(3, "failed")]
    assert not found.problems


@pytest.mark.parametrize(("word", "status"), [("crashed", "failed"), ("RUNNING", "running"), ("finished", "complete")])
def test_a_column_of_states_tells_what_became_of_runs(tmp_path, word, status):
    text = LONG.replace("val_acc\n", "val_acc,state\n").replace("\nn", ",finished\nn")
    lines = [line if line.count(",") == 3 else f"{line},{word}" for line in text.splitlines()]
    assert read(tmp_path, "\n".join(lines)).runs[-1].status == status


def test_the_best_epoch_of_the_score_itself_is_marked_optimistic(tmp_path):
    text = histories({(m, s): [v - 0.1, v, v - 0.05] for m, s, v in ROWS})
    best = read(tmp_path, text, at="best:val_acc")
    assert scores(best) == EXPECTED
    assert best.notes[0].startswith("Optimistic: each run is judged at the step where val_acc itself is best")
    assert scores(read(tmp_path, text, at="step=2")) == EXPECTED
    assert read(tmp_path, text).notes == []


def test_data_sets_are_never_mixed(tmp_path):
    rows = [f"{data},{m},{s},{v}" for data in ("digits", "letters") for m, s, v in ROWS]
    found = read(tmp_path, "\n".join(["dataset,method,seed,val_acc", *rows]))
    assert {r.dataset for r in found.runs} == {"digits", "letters"}
    assert found.arm_keys == ["method"]
    assert "a table for each dataset" in found.said
