"""The report on another program's runs: how they were read, and only the sections that such runs have."""

import json
import shlex
from pathlib import Path

import foreign_runs
import optuna
import pytest
from pages import blank_pictures
from trees import design_of, write_run, write_study

from reg_sweep.report.command import main as drawn

main = blank_pictures()(drawn)  # most of a report's time is its pictures', and one test looks at them

GRID = "".join(
    f"{m},{wd},{seed},{epoch},"
    f"{0.5 + 0.01 * seed + gain + 0.003 * ((seed * seed * len(m) + seed * epoch + int(100 * wd)) % 4) + 0.1 * wd:.4f}\n"
    for m, gain in (("<b>base</b>", 0), ("=new", 0.1))
    for wd in (0, 0.01, 0.1)
    for seed in (1, 2, 3)
    for epoch in (1, 2, 3)
)


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("results.csv").write_text("method,wd,seed,epoch,val_acc\n" + GRID)
    return Path("results.csv")


def test_the_first_screen_says_how_runs_were_read_and_the_command_that_says_otherwise(table, capsys):
    assert main([str(table), "--latex"]) == 0
    read_as, another, *verdict, page = capsys.readouterr().out.splitlines()
    told = "arms: method, wd; seed: seed; score: val_acc, higher is better; each run at its last step"
    assert read_as == f"Read as: {told}"
    command = "python -m reg_sweep.report results.csv --score val_acc:max --seed seed --at last --arm method,wd"
    assert another == f"To read it differently, change: {command} --latex"
    assert "is better than the baseline, <b>base</b> · wd 0" in verdict[-1]
    assert page == "results-report/index.html"
    text = Path(page).read_text()
    assert command in text
    assert "<code>results.csv</code>: a table, one row per epoch" in text
    command += " --latex"
    assert main(command.removeprefix("python -m reg_sweep.report ").split()) == 0  # what is printed can be typed


@pytest.mark.parametrize(
    "typed",
    [
        ["--baseline", "method==new,wd=0.1", "--margin", "0.02", "--question", "not_worse", "--out", "my page"],
        ["--pairing", "none", "--variance", "plain", "--together", "--source", "table", "--fail-if", "worse,undecided"],
        ["--latex", "--files", "svg,png", "--baseline=-new"],
    ],
)
def test_the_command_of_another_reading_repeats_what_was_typed(table, capsys, typed):
    table.write_text(table.read_text().replace("<b>base</b>", "-new"))
    assert main([str(table), *typed, "--arm", "method,wd" if "method==new,wd=0.1" in typed else "method"]) in (0, 3)
    _, another, *verdict, _ = capsys.readouterr().out.splitlines()
    words = shlex.split(another.removeprefix("To read it differently, change: python -m reg_sweep.report "))
    assert not {*typed} - {*words}
    assert main(words) in (0, 3)
    assert capsys.readouterr().out.splitlines()[2:-1] == verdict


def test_sections_are_there_only_where_the_runs_have_such_things(table):
    drawn([str(table), "--latex"])
    text = Path("results-report/index.html").read_text()
    for section in ("arms", "outlook", "curves", "lambda"):
        assert f'id="d1-{section}"' in text
    for section in ("weights", "mistakes", "network", "conclusions", "studies"):
        assert f'id="d1-{section}"' not in text
    for word in ("Ghost", "kernel", "McNemar", "test accuracy", "Test accuracy", ">L1<", "<b>base</b>"):
        assert word not in text.partition('<div popover id="word-')[0].partition("<body>")[2]
    names = {path.name for path in Path("results-report").iterdir()}
    assert {"arms.tex", "differences.tex", "study-wd-1.svg", "curves-val-acc.svg"} <= names
    assert "'=new" in Path("results-report/summary.csv").read_text()  # no spreadsheet runs it
    heading, marks, *rows = [line for line in Path("results-report/summary.md").read_text().splitlines() if "|" in line]
    assert {line.count("|") for line in (heading, marks, *rows)} == {heading.count("|")}


def test_json_and_fail_if_work_as_for_own_runs(table, capsys):
    assert main([str(table), "--baseline", "method==new,wd=0.1", "--fail-if", "worse", "--json"]) == 3
    (facts,) = json.loads(capsys.readouterr().out)["tables"]
    assert facts["baseline"] == "=new · wd 0.1"
    assert {arm["verdict"] for arm in facts["arms"] if arm["config.method"] == "<b>base</b>"} == {"worse"}


def test_a_margin_is_in_the_scores_own_unit(table, capsys):
    table.write_text(table.read_text().replace("val_acc", "reward"))
    assert main([str(table), "--margin", "5", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)["tables"]
    assert facts["margin"] == 5
    assert "shown equivalent" in {arm["verdict"] for arm in facts["arms"]}


def test_own_runs_and_strangers_are_one_page_of_two_tables(tmp_path, capsys):
    foreign_runs.main(tmp_path, ["csv"])
    for seed in (1, 2):
        for norm in ("bn", "gn"):
            write_run(tmp_path / "own" / f"{norm}{seed}", norm=norm, seed=seed, accuracy=0.9 + 0.01 * seed)
    assert main([str(tmp_path / "own"), str(tmp_path / "csv" / "results.csv"), "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert {t["metric"] for t in tables} == {"test_accuracy", "val_acc"}


def test_runs_of_record_run_are_reported(tmp_path, capsys):
    foreign_runs.main(tmp_path, ["records"])
    assert main([str(tmp_path / "records")]) == 0
    assert "new" in capsys.readouterr().out


def test_score_and_at_are_understood_for_own_runs(tmp_path, capsys):
    write_run(tmp_path / "run")
    assert main([str(tmp_path), "--score", "test_loss:min", "--at", "best:val_loss", "--json"]) == 0
    (facts,) = json.loads(capsys.readouterr().out)["tables"]
    assert (facts["metric"], facts["epoch"]) == ("test_loss", "best_val")


def test_a_search_alone_is_shown_and_not_judged(tmp_path, capsys):
    write_study(tmp_path, [{"params": {"x": x}, "values": [x]} for x in (0.1, 0.2, 0.3)], kind="search")
    for source in (tmp_path, tmp_path / "study.json"):
        assert main([str(source), "--out", str(tmp_path.parent / f"page of {source.name}")]) == 0
        assert "not judged" in capsys.readouterr().out


def sequential_storage(path):
    """A study that judged its arms at looks, in a database of its own."""
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name="it", direction="maximize")
    study.set_user_attr("reg_sweep", "0.1.0")
    study.set_user_attr("searcher", "UntilVerdict")
    study.set_user_attr("looks", {"seeds": [3]})
    arms = {"arm": optuna.distributions.CategoricalDistribution(["a", "b"])}
    seeds = {"seed": optuna.distributions.IntDistribution(1, 9)}
    for arm, seed in ((arm, seed) for arm in "ab" for seed in (1, 2, 3)):
        known = {"params": {"arm": arm, "seed": seed}, "distributions": arms | seeds}
        study.add_trial(optuna.trial.create_trial(**known, value=0.5 + 0.4 * (arm == "b") + seed / 99))


def job_folders(folder):
    """The jobs of such a study of a Hydra app, without its study.json, which lies above them."""
    for n, (arm, seed) in enumerate((arm, seed) for arm in "ab" for seed in (1, 2, 3)):
        job = folder / str(n)
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "config.yaml").write_text(f"arm: {arm}\nseed: {seed}\n")
        (job / "metrics.json").write_text(json.dumps({"score": 1 + seed**2 / 99 if arm == "b" else seed / 99}))
    rest = {"n_seeds": 3, "n_diverged": 0, "n_failed": 0, "estimate": 1.0, "ci_low": 0.9, "ci_high": 1.1}
    looks = [{"seeds": 3, "arms": [{"params": {"arm": "b"}, "decision": "better", **rest}]}]
    design = design_of("score", [3], [{"arm": "a"}, {"arm": "b"}])
    trials = [{"params": {"arm": "a", "seed": 1}, "values": [0.5]}]
    write_study(folder, trials, kind="until_verdict", design=design, looks=looks)


@pytest.mark.parametrize("form", ["storage", "address", "jobs"])
def test_what_a_sequential_study_bought_gets_no_verdict_without_its_design(tmp_path, capsys, form):
    if form == "jobs":
        job_folders(tmp_path / "it")
        named = [str(tmp_path / "it" / str(n)) for n in range(6)]
    else:
        sequential_storage(tmp_path / "copy.db")
        named = [str(tmp_path / "copy.db") if form == "storage" else f"sqlite:///{tmp_path}/copy.db"]
    assert main([*named, "--json", "--out", str(tmp_path / "out")]) == 0
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    assert [arm["verdict"] for arm in table["arms"] if arm["verdict"]] == ["exploratory"]
    assert "study.json was not read: name its folder" in " ".join(table["notes"])


def test_a_judged_study_is_judged_by_its_design_by_whatever_file_it_is_named(tmp_path, capsys):
    scores = {("a", 1): 0.50, ("a", 2): 0.60, ("a", 3): 0.55, ("b", 1): 0.30, ("b", 2): 0.41, ("b", 3): 0.34}
    trials = [{"params": {"arm": arm, "seed": seed}, "values": [v]} for (arm, seed), v in scores.items()]
    facts = {"n_seeds": 3, "n_diverged": 0, "n_failed": 0, "estimate": -0.2, "ci_low": -0.3, "ci_high": -0.1}
    arm = {"params": {"arm": "b"}, "decision": "better", **facts}
    design = design_of("cost", [3, 5], [{"arm": "a"}, {"arm": "b"}])
    write_study(tmp_path, trials, kind="until_verdict", design=design, looks=[{"seeds": 3, "arms": [arm]}])
    (tmp_path / "study.db").write_bytes(b"SQLite format 3\0")
    said = []
    for name in ("", "study.json", "study.db"):
        assert main([str(tmp_path / name), "--json", "--out", str(tmp_path.parent / f"out{name}")]) == 0
        said.append(json.loads(capsys.readouterr().out)["tables"])
    assert said[0] == said[1] == said[2]
    assert said[0][0]["notes"][0].startswith("Judged by the design of the study")
