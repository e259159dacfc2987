"""What readers of a record take from its config. The rest is shown, and made into digests, as it is."""

from typing import Annotated, Any, NotRequired, TypedDict

from reg_sweep.runs.validation import MAX_WHOLE, Between, Name, Share

Strength = Annotated[float, Between(0, 1e39)]


class ChosenFacts(TypedDict):
    """What a group of settings chose."""

    name: Name


class PenaltyFacts(ChosenFacts):
    """A penalty's form and updates."""

    l1_update: Name
    l2_update: Name


class DataSettings(TypedDict):
    """Where a data set came from; `source` may hold anything else that a user's own function takes."""

    source: dict[str, Any]
    root: str
    label_noise: NotRequired[Share | None]


class ConfigFacts(TypedDict):
    """Of a config, what has to be there and of which type."""

    l1: Strength
    l2: Strength
    seed: Annotated[int, Between(0, MAX_WHOLE, "a whole number")]
    epochs: Annotated[int, Between(1, 10**9, "a whole number")]
    norm: ChosenFacts
    penalty: PenaltyFacts
    data: DataSettings
    runtime: dict[str, Any]
    objective: NotRequired[Name | list[Name] | None]
