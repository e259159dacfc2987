"""The end of a study until a verdict, as text."""

from reg_sweep.search.results import difference_text, last_look, verdict_table

DESIGN = {
    "looks": [3, 5],
    "max_seeds": 5,
    "alpha": 0.05,
    "margin": None,
    "variance": "moderated",
    "metric": "test_accuracy",
    "first_seed": 1,
    "baseline": {"norm": "bn"},
    "arms": [{"norm": "gbn"}, {"norm": "gn"}, {"norm": "ln"}],
}


def arm(norm, decision, estimate=0.25, n_diverged=0, n_failed=0):
    bounds = {"ci_low": None, "ci_high": None} if estimate is None else {"ci_low": -0.5, "ci_high": 1.0}
    counts = {"n_seeds": 3, "n_diverged": n_diverged, "n_failed": n_failed}
    return {"params": {"norm": norm}, "decision": decision, "estimate": estimate, **bounds, **counts}


LOOKS = [
    {"seeds": 3, "arms": [arm("gbn", "better"), arm("gn", "undecided")]},
    {"seeds": 5, "arms": [arm("gn", "undecided", None, n_diverged=2, n_failed=1)]},
]


def test_the_table_has_each_arms_last_look_and_what_was_lost():
    header, gbn, gn, ln = verdict_table(DESIGN, LOOKS).splitlines()
    assert header.split("  ")[-1] == "verdict"
    assert "95% interval (90% if equivalent)" in header
    assert gbn.split() == ["norm=gbn", "3", "+0.25", "-0.5", "to", "+1", "better"]
    assert gn.split(maxsplit=4) == ["norm=gn", "5", "-", "-", "undecided, 2 of 5 diverged, 1 of 5 failed"]
    assert ln.endswith("not analysed yet")


def test_the_last_look_at_an_arm_is_the_one_that_judged_it_last():
    assert last_look({"norm": "gbn"}, LOOKS) == (3, LOOKS[0]["arms"][0])
    assert last_look({"norm": "gn"}, LOOKS) == (5, LOOKS[1]["arms"][0])
    assert last_look({"norm": "ln"}, LOOKS) == (0, None)


def test_a_difference_that_is_not_known_is_a_dash():
    assert difference_text(arm("gbn", "better")) == ("+0.25", "-0.5 to +1")
    assert difference_text(arm("gbn", "undecided", None)) == ("-", "-")
