"""Settings of regularizers: what is refused, in one line, and what is no other run than one without."""

import pytest

from reg_sweep.config.digest import digest
from reg_sweep.config.regularizers import AveragingConfig, LossConfig, MixConfig, StrengthScheduleConfig
from reg_sweep.config.rules import ConfigError
from reg_sweep.config.schema import RunConfig, to_dict

ORTHO = {"_target_": "mine.orthogonality", "strength": 0.01}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AveragingConfig("ema", 1), "averaging.decay must be at least 0 and below 1, got 1"),
        (lambda: AveragingConfig("swa", start=1.0), "averaging.start must be at least 0 and below 1, got 1.0"),
        (lambda: AveragingConfig("none", 0.9),
         "averaging.decay must be left out with averaging=none, got 0.9: it belongs to averaging=ema"),
        (lambda: AveragingConfig("mean"), "averaging must be one of none, ema, swa, got 'mean'"),
        (lambda: MixConfig("mixup", 0), "mix.alpha must be a finite number above 0, got 0"),
        (lambda: MixConfig("none", 0.2),
         "mix.alpha must be left out with mix=none, got 0.2: it belongs to mix=mixup and mix=cutmix"),
        (lambda: LossConfig(name="hinge"), "loss must be one of cross_entropy, got 'hinge'"),
        (lambda: LossConfig(0.1, "own", {"_target_": "mine.loss"}),
         "loss.label_smoothing must be 0 with loss.source, got 0.1: it belongs to loss=cross_entropy"),
        (lambda: RunConfig(l2_schedule=StrengthScheduleConfig("rise")),
         "l2_schedule must be one of constant, warmup, cosine, got 'rise'"),
        (lambda: RunConfig(l1_schedule=StrengthScheduleConfig("cosine", 0.1)),
         "l1_schedule.warmup must be left out with l1_schedule=cosine, got 0.1: it belongs to l1_schedule=warmup"),
        (lambda: RunConfig(batch_size=1, mix="mixup", norm="gn"),
         "batch_size must be at least 2 with mix=mixup, got 1: raise batch_size or choose mix=none"),
        (lambda: RunConfig(penalties={"ortho": {**ORTHO, "strength": -1}}),
         "penalties.ortho.strength must be a finite number of at least 0, got -1"),
        (lambda: RunConfig(penalties={"ortho": {"_target_": "mine.orthogonality"}}),
         "penalties.ortho.strength must be given, got None: for example penalties.ortho.strength=0.01"),
        (lambda: RunConfig(penalties={"l1": ORTHO}),
         "penalties must have names made of letters, digits and _, other than l1 and l2, got 'l1'"),
        (
            lambda: RunConfig(penalties={"ortho": {**ORTHO, "_target_": len}}),
            f"penalties.ortho._target_ must be the dotted path of a callable, got {len!r}: "
            "for example my_package.MyNet",
        ),
        (lambda: RunConfig(penalties={"ortho": {**ORTHO, "schedule": {"nam": "cosine"}}}),
         "penalties.ortho.schedule must be a name or a mapping with name and warmup, got {'nam': 'cosine'}"),
    ],
)  # fmt: skip
def test_a_regularizer_out_of_its_range_is_refused_in_one_line(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert str(error.value) == message


def test_digests_are_older_than_these_settings():
    plain = to_dict(RunConfig(loss=LossConfig(0.1)))
    older = {k: v for k, v in plain.items() if k not in ("mix", "averaging", "l1_schedule", "l2_schedule", "penalties")}
    assert digest(plain) == digest({**older, "loss": {"label_smoothing": 0.1}})
    on = [RunConfig(), RunConfig(mix="mixup"), RunConfig(averaging="ema"), RunConfig(penalties={"ortho": ORTHO})]
    on += [RunConfig(penalties={"ortho": {**ORTHO, **more}}) for more in ({"of": "weights"}, {"schedule": "cosine"})]
    assert len({digest(to_dict(run)) for run in on}) == len(on)
    spelled_out = {**ORTHO, "of": "model", "schedule": "constant"}
    assert digest(to_dict(RunConfig(penalties={"ortho": spelled_out}))) == digest(to_dict(on[3]))
