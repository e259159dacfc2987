"""A study that ends with the first arm, in an order of preference, that is shown not worse."""

import random

import optuna
import pytest
import toy_apps
from omegaconf import OmegaConf

from reg_sweep.search.plan import StudyPlan
from reg_sweep.search.sequential import analyses_of, given_up
from reg_sweep.search.settings import StudyError
from reg_sweep.search.trial_queue import TrialQueue

LOSS = {"dense": 0.0, "tiny": 3.0, "small": 0.0, "large": 0.0}


def plan_of(**design) -> StudyPlan:
    design = {"margin": 1.0, "question": "not_worse", "in_order": True} | design
    return toy_apps.plan_of("arm=dense,tiny,small,large", design=design, until_verdict=True, direction="maximize")


def trained(plan: StudyPlan, noise: float = 0.3):
    """Runs a study to its end; each arm's number of seeds, and its analyses."""
    study = optuna.create_study(direction="maximize")
    queue = TrialQueue(study, plan)
    seeds: dict[str, int] = {}
    while taken := queue.take().trials:
        for trial in taken:
            arm, seed = trial.params["arm"], trial.params["seed"]
            seeds[arm] = seeds.get(arm, 0) + 1
            study.tell(trial, noise * random.Random(f"{arm} {seed}").gauss() - LOSS[arm])
    return seeds, study


def test_it_ends_with_the_first_arm_that_is_not_worse_and_gives_up_what_lies_beyond_the_margin():
    plan = plan_of()
    seeds, study = trained(plan)
    looks = analyses_of(study)
    decisions = {a["params"]["arm"]: a["decision"] for look in looks for a in look["arms"]}
    assert decisions["small"] == "shown not worse"
    assert seeds["tiny"] == 5
    assert decisions["tiny"] == "undecided"
    assert seeds["large"] <= seeds["small"] < 20
    assert plan.until.undecided(looks) == []
    assert plan.until.record(study, OmegaConf.create({"objective": "loss"}))[0]["in_order"] is True


def test_without_the_order_the_same_arms_train_to_the_end():
    seeds, _ = trained(plan_of(in_order=False))
    assert seeds["tiny"] == 20


def look(n: int, **arms) -> dict:
    return {"seeds": n, "arms": [{"params": {"arm": a}, "decision": d, "estimate": e} for a, (d, e) in arms.items()]}


ARMS = [{"arm": "tiny"}, {"arm": "small"}, {"arm": "large"}]


@pytest.mark.parametrize(
    ("looks", "closed"),
    [
        ([look(3, tiny=("undecided", -5.0))], []),  # one look gives nothing up
        ([look(3, tiny=("undecided", 0.0)), look(5, tiny=("undecided", -1.5))], ["tiny"]),
        ([look(3, tiny=("undecided", 0.0)), look(5, tiny=("undecided", -0.5))], []),
        ([look(3, small=("shown not worse", 0.0))], ["large"]),  # and not what comes before it
        ([look(3, small=("worse by divergence", None))], []),
        ([look(3, large=("shown not worse", 0.0))], []),
    ],
)
def test_an_arm_is_given_up_where_one_before_it_is_not_worse_or_its_mean_is_beyond_the_margin(looks, closed):
    assert [arm["arm"] for arm in given_up(ARMS, looks, -1.0)] == closed
    for arm in (arm for one in looks for arm in one["arms"]):  # where less is better
        arm["estimate"] = arm["estimate"] and -arm["estimate"]
    assert [arm["arm"] for arm in given_up(ARMS, looks, 1.0)] == closed


def test_another_question_has_no_order():
    with pytest.raises(StudyError, match=r"got question better: add hydra\.sweeper\.design\.question=not_worse"):
        plan_of(question="better")
