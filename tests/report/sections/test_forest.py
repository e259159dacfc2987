import numpy as np
from pages import BN, L1, report
from trees import comparisons, write_arms, write_run

from reg_sweep.comparison.insights import effects
from reg_sweep.comparison.results import TEST_LOSS
from reg_sweep.report.canvas import Canvas
from reg_sweep.report.sections.forest import N_NEAREST, forest_section

L2 = ("bn", 0.0, 0.1)


def forest(root, **options):
    (comparison,) = comparisons(root, **options)
    return comparison, forest_section(comparison, Canvas(1, comparison))


def test_rows_go_from_the_best_difference_to_the_worst_with_the_tables_words(tmp_path):
    write_arms(tmp_path, {BN: [0.80, 0.82, 0.81], L1: [0.70, 0.73, 0.71], L2: [0.90, 0.93, 0.91]})
    comparison, section = forest(tmp_path)
    verdicts = {arm.label: arm.verdict for arm in comparison.arms}
    assert [(row.label, row.verdict) for row in section.rows] == [
        (label, verdicts[label]) for label in ("bn · L2 0.1", "bn · L1 0.001")
    ]
    assert [row.cells[0].mark for row in section.rows] == ["better", "worse"]


def test_of_a_loss_the_lowest_difference_comes_first(tmp_path):
    for seed in (1, 2):
        for i, loss in enumerate((0.5, 0.6, 0.4)):
            write_run(tmp_path / f"{i}-{seed}", l1=0.001 * i, seed=seed, loss=loss + 0.01 * seed * i)
    _, section = forest(tmp_path, metric=TEST_LOSS)
    assert [row.label for row in section.rows] == ["bn · L1 0.002", "bn · L1 0.001"]
    assert section.axes[0].title == "Test loss"
    assert not section.axes[0].right_is_better


def test_every_interval_and_seed_lies_on_the_axis_that_all_rows_share(tmp_path):
    write_arms(tmp_path, {BN: [0.80, 0.82], L1: [0.10, 0.93], L2: [0.80, 0.83]})
    _, section = forest(tmp_path)
    for row in section.rows:
        for cell in row.cells:
            if cell is not None and cell.ends is not None:
                assert 0 <= cell.ends[0] <= cell.place <= cell.ends[1] <= 100
            assert cell is None or all(0 <= dot <= 100 for dot in cell.dots)


def test_of_many_arms_all_that_differ_are_drawn_and_the_nearest_of_the_rest(tmp_path):
    rng = np.random.default_rng(0)
    noise = [[0.001 * float(rng.normal()) for _ in range(3)] for _ in range(50)]
    arms = {("bn", 0.001 * n, 0.0): [0.8 - (0.3 if n % 2 else 0) + e for e in noise[n]] for n in range(50)}
    write_arms(tmp_path, arms, predictions=False)
    comparison, section = forest(tmp_path)
    worse = {arm.label for arm in comparison.arms if arm.verdict == "worse"}
    drawn = [row.label for row in section.rows]
    assert len(worse) == 25
    assert worse <= set(drawn)
    assert len(drawn) == 25 + N_NEAREST
    assert section.chosen == (
        f"Shown: the 25 arms that differ and of the other 24, the leading one and the {N_NEAREST - 1} nearest to a "
        "verdict; the table below has all 49."
    )


def test_of_many_arms_the_one_that_the_headline_names_is_drawn_though_it_has_no_interval(tmp_path):
    rng = np.random.default_rng(0)
    arms = {("bn", 0.001 * n, 0.0): [0.8 + 0.01 * float(rng.normal()) for _ in range(3)] for n in range(40)}
    tied = ("bn", 0.05, 0.0)
    arms[tied] = [score + 0.05 for score in arms["bn", 0.0, 0.0]]
    write_arms(tmp_path, arms, predictions=False)
    comparison, section = forest(tmp_path)
    assert comparison.best.label == "bn · L1 0.05"
    assert "bn · L1 0.05" in [row.label for row in section.rows]
    assert section.chosen.startswith("Shown: of 40 arms, the leading one and the 19 nearest to a verdict")


def test_the_page_shows_the_plot_between_verdict_and_table_and_its_files_lie_beside(tmp_path):
    write_arms(tmp_path / "runs", {BN: [0.8, 0.9], L1: [0.8, 0.84]})
    page, _ = report(tmp_path / "runs", out=tmp_path / "report", files=("png", "pdf"))
    assert page.source.index('class="says"') < page.source.index('class="forest"') < page.source.index('id="d1-arms"')
    assert {f"differences.{end}" for end in ("svg", "png", "pdf")} <= {p.name for p in (tmp_path / "report").iterdir()}


def test_equal_differences_have_no_interval_and_say_why_and_one_arm_has_no_plot(tmp_path):
    write_arms(tmp_path / "two", {BN: [0.5, 0.75], L1: [0.25, 0.5]})
    (cell, *_) = forest(tmp_path / "two")[1].rows[0].cells
    assert (cell.interval, cell.ends) == ("no spread over seeds", None)
    write_arms(tmp_path / "one", {BN: [0.8, 0.9]})
    assert forest(tmp_path / "one")[1] is None


def test_the_other_metric_is_shown_for_reference_and_not_tested(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path / f"0-{seed}", seed=seed, accuracy=0.8 + seed / 100, loss=0.3)
        write_run(tmp_path / f"1-{seed}", seed=seed, l1=0.001, accuracy=0.7 + seed / 90, loss=0.5 + (seed - 2) / 100)
    _, section = forest(tmp_path)
    assert section.rows[0].cells[1].mark == "untested"
    assert section.rows[0].cells[1].alt.startswith("+0.2000, a mean, not tested; 95% interval")
    assert ("untested", "a mean, not tested") in section.marks
    assert "Test loss is shown for reference only" in section.caption


def test_the_marks_and_the_margin_are_told_as_they_are_seen(tmp_path):
    write_arms(tmp_path / "one", {BN: [0.9], L1: [0.3]})
    _, section = forest(tmp_path / "one", margin=0.001)
    assert dict(section.marks)["open"] == "these two models differ"
    assert "+0" not in section.rows[0].cells[0].alt
    assert "these two models differ" in section.rows[0].cells[0].alt
    assert "Too narrow to be seen here: the equivalence margin, ±0.1 points." in section.caption
    write_arms(tmp_path / "two", {BN: [0.9, 0.901], L1: [0.85, 0.95]})
    _, section = forest(tmp_path / "two", margin=0.1)
    assert dict(section.marks)["open"] == "no difference shown"
    assert "Shaded: the equivalence margin, ±10 points." in section.caption
    assert len(section.axes[0].on_paper) <= len(section.axes[0].ticks)


def test_where_not_worse_was_asked_the_plot_has_the_interval_of_the_verdict_and_its_level(tmp_path):
    write_arms(tmp_path, {BN: [0.80, 0.82, 0.81, 0.80], L1: [0.801, 0.822, 0.808, 0.80], L2: [0.79, 0.81, 0.803, 0.80]})
    comparison, section = forest(tmp_path, margin=0.01, question="not_worse")
    findings = {arm.label: arm.finding for arm in comparison.arms if arm.finding is not None}
    levels = {f.equivalence_level(0.05) for f in findings.values()}
    (level,) = levels
    assert level != "95%"
    for effect in effects(comparison)[0].of_arms:
        f = findings[effect.arm.label]
        assert (effect.low, effect.high) == (f.equivalence.ci_low, f.equivalence.ci_high)
        assert (f.verdict == "shown not worse") == (effect.low > -0.01)
    assert all(f"; {level} interval " in row.cells[0].alt for row in section.rows)
    assert all("; 95% interval " in row.cells[1].alt for row in section.rows if "interval " in row.cells[1].alt)
    assert f"Line: the simultaneous {level} interval of all arms together." in section.caption


def test_where_a_difference_was_asked_an_equivalent_arm_keeps_the_interval_of_its_difference(tmp_path):
    write_arms(tmp_path, {BN: [0.80, 0.82, 0.81, 0.80], L1: [0.801, 0.822, 0.808, 0.80]})
    comparison, section = forest(tmp_path, margin=0.02)
    (effect,) = effects(comparison)[0].of_arms
    assert effect.arm.verdict == "shown equivalent"
    assert (effect.low, effect.level) == (effect.arm.finding.difference.ci_low, "95%")
    assert "; 95% interval " in section.rows[0].cells[0].alt
