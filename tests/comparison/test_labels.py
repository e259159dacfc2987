import pytest
from hypothesis import given
from hypothesis import strategies as st

from reg_sweep.comparison.labels import arm_labels, data_labels, flatten
from reg_sweep.config.schema import NormConfig, OptimizerConfig, RunConfig, to_dict
from reg_sweep.runs.ranking import lambda_text

strengths = st.sampled_from([0.0, 1e-7, 1e-5, 0.0005, 0.0001, 0.00010001, 1e-4 + 1e-12, 0.5])


@given(st.lists(st.tuples(st.sampled_from(["none", "bn", "gbn"]), strengths, strengths), min_size=1, unique=True))
def test_no_two_arms_share_a_label(settings):
    configs = [to_dict(RunConfig(norm=NormConfig(n), l1=l1, l2=l2)) for n, l1, l2 in settings]
    assert len(set(arm_labels(configs))) == len(configs)


@given(st.floats(1e-12, 1e3))
def test_a_lambdas_text_is_the_lambda(strength):
    assert float(lambda_text(strength, 17)) == pytest.approx(strength, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["0", "3.79e-06", "1e-05", "9e-05", "0.0001", "0.000173", "0.0005", "0.1", "2", "0.123"]
)
def test_a_lambda_is_plain_down_to_a_ten_thousandth_and_short_below(text):
    assert lambda_text(float(text)) == text
    assert lambda_text(float(text) * 1.0001) == text


WIDE = [{"_target_": "my.Wide", "width": 32 * n, "blocks": 4 - n, "channels": 8} for n in (1, 2)]
PLAIN = {"_target_": "my.Plain", "channels": 8}


@pytest.mark.parametrize(
    ("runs", "labels"),
    [
        (
            [{}, {"norm": "gbn", "l1": 0.001, "l2": 0.0005}, {"norm": "none", "optimizer": OptimizerConfig(lr=0.1)}],
            ["bn · lr 0.025", "gbn · L1 0.001 · L2 0.0005 · lr 0.025", "no norm · lr 0.1"],
        ),
        ([{}, {"l1": 0.1, "penalty": "notebook"}], ["bn · penalty textbook", "bn · L1 0.1 · penalty notebook"]),
        ([{}, {"norm": "gbn", "l1": 0.001}], ["bn", "gbn · L1 0.001"]),
        ([{}, {"optimizer": OptimizerConfig("adamw")}], ["bn · optimizer sgd", "bn · optimizer adamw"]),
        (
            [{"model": model} for model in (*WIDE, PLAIN)],
            ["bn · model Wide · width 32 · blocks 3", "bn · model Wide · width 64 · blocks 2", "bn · model Plain"],
        ),
        ([{"model": WIDE[1]}, {"model": PLAIN}], ["bn · model Wide", "bn · model Plain"]),
        (
            [{"l1": 1 / 3, "optimizer": OptimizerConfig(lr=0.1 + by)} for by in (0, 1e-9)],
            ["bn · L1 0.333 · lr 0.1", "bn · L1 0.333 · lr 0.100000001"],
        ),
    ],
    ids=["a rate", "a penalty", "nothing else", "another choice", "another model", "one of each", "digits"],
)
def test_a_label_names_norm_and_lambdas_and_then_only_what_differs(runs, labels):
    assert arm_labels([to_dict(RunConfig(**settings)) for settings in runs]) == labels


def test_a_setting_that_an_older_record_lacks_is_named_if_nothing_else_differs():
    new = to_dict(RunConfig())
    old = {k: v for k, v in new.items() if k != "penalty"} | {"penalty": {"name": "textbook"}}
    assert len(set(arm_labels([new, old]))) == 2


DATA = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["mnist", "kmnist"]),
        "n_train": st.sampled_from([None, 1000, 50_000]),
        "label_noise": st.sampled_from([0.0, 0.2]),
        "n_test": st.sampled_from([10, 20]),
        "n_val": st.sampled_from([0, 10]),
        "fingerprint": st.sampled_from(["a", "b"]),
    }
)


@given(st.lists(DATA, min_size=1, unique_by=lambda d: repr(sorted(d.items()))))
def test_no_two_tables_share_the_name_of_their_data(data):
    assert len(set(data_labels(data))) == len(data)


def test_the_name_of_data_tells_what_sets_it_apart_and_no_more():
    mnist = {"name": "mnist", "n_train": 50_000, "label_noise": 0, "n_test": 10, "n_val": 10_000, "fingerprint": "a"}
    assert data_labels([mnist]) == ["mnist"]
    assert data_labels([mnist, mnist | {"name": "kmnist", "fingerprint": "b"}]) == ["mnist", "kmnist"]
    assert data_labels([mnist, mnist | {"n_train": 1000}, mnist | {"n_train": 60_000, "n_val": 0}]) == [
        "mnist, 50,000 train images",
        "mnist, 1,000 train images",
        "mnist, 60,000 train images",
    ]
    assert data_labels([mnist, mnist | {"label_noise": 0.2}]) == ["mnist, no label noise", "mnist, label noise 20%"]
    assert data_labels([mnist, mnist | {"n_val": 0}]) == ["mnist, 10,000 val images", "mnist, 0 val images"]


def test_a_regularizer_is_a_word_of_its_arms_label_and_no_word_of_the_others():
    ortho = {"_target_": "mine.orthogonality", "strength": 0.01}
    runs = {
        "bn": RunConfig(),
        "bn · ortho 0.01": RunConfig(penalties={"ortho": ortho}),
        "bn · L1 0.001 · ortho 0.1": RunConfig(l1=0.001, penalties={"ortho": {**ortho, "strength": 0.1}}),
        "bn · label smoothing 0.1": RunConfig(loss={"label_smoothing": 0.1}),
        "bn · loss focal": RunConfig(loss={"name": "own", "source": {"_target_": "mine.focal"}}),
        "bn · mixup · alpha 0.2": RunConfig(mix="mixup"),
        "bn · cutmix · alpha 1": RunConfig(mix="cutmix"),
        "bn · ema · decay 0.99": RunConfig(averaging="ema"),
        "bn · ema · decay 0.9": RunConfig(averaging={"name": "ema", "decay": 0.9}),
        "bn · swa": RunConfig(averaging="swa"),
        "bn · L1 0.001 · l1 schedule cosine": RunConfig(l1=0.001, l1_schedule="cosine"),
        "bn · L2 0.001 · l2 update cautious": RunConfig(l2=0.001, penalty="cautious"),
    }
    labels = arm_labels([to_dict(run) for run in runs.values()])
    # Only the penalty's form concerns all arms, so that each names its own.
    assert [label.replace(" · l2 update coupled", "") for label in labels] == list(runs)


def test_neither_a_seed_nor_a_place_nor_a_regularizer_that_is_off_makes_another_arm():
    def settings(**config):
        return flatten(to_dict(RunConfig(**config)))

    off = {"ortho": {"_target_": "mine.orthogonality", "strength": 0}}
    assert settings(seed=1, name="a") == settings(seed=2, name="b") == settings()
    assert settings(penalties=off, mix="none", l1_schedule="cosine") == settings()
    assert settings(l1=0.001, l1_schedule="constant") == settings(l1=0.001)
    assert settings(l1=0.001, l1_schedule="cosine") != settings(l1=0.001)
