"""What a user is told who gives one thing for another: one line, before any work."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.helpers import ADAPTER, STEPS, Toy, sample, schedule_of
from smoothcache_core import (
    Calibration,
    PatternAdapter,
    Sampler,
    Schedule,
    SmoothCacheError,
    attach,
    cached,
    calibrate,
    evaluate,
    fit,
    plan,
    transfer,
)
from torch import nn


class Pipeline:
    """As a pipeline of diffusers looks."""

    def __init__(self) -> None:
        self.transformer = Toy()
        self.components = {"transformer": self.transformer}


def run(seed: int) -> None:
    raise AssertionError(f"ran {seed}")


MODEL = Toy()
SCHEDULE = schedule_of()
SAMPLER = Sampler(model=MODEL, adapter=ADAPTER, run=run)
TOY = Toy()
CALIBRATION = calibrate(
    Sampler(model=TOY, adapter=ADAPTER, run=lambda _: sample(TOY) and None),
    seeds=[0], sensitivity=0, progress=False,
)  # fmt: skip


def entering(*arguments: Any, **settings: Any) -> None:
    with cached(*arguments, **settings):
        pass


MISTAKES: dict[str, tuple[Callable[[], object], str]] = {
    "path of a schedule": (
        lambda: entering(MODEL, ADAPTER, "half.json"),
        r"`schedule` must be a Schedule, not the text 'half.json'; load it: Schedule.load\('half",
    ),
    "Path of a schedule": (
        lambda: entering(MODEL, ADAPTER, Path("half.json")),
        r"Schedule.load\('half.json'\)",
    ),
    "document": (lambda: entering(MODEL, ADAPTER, {"attn": [1, 0]}), r"Schedule.imported"),
    "swapped": (lambda: entering(MODEL, SCHEDULE, ADAPTER), "not a Schedule; .*swapped"),
    "all swapped": (lambda: entering(ADAPTER, MODEL, SCHEDULE), "`model` must be .*swapped"),
    "model and schedule": (lambda: entering(SCHEDULE, ADAPTER, MODEL), "`model` must be .*swapped"),
    "pipeline": (lambda: entering(Pipeline(), ADAPTER, SCHEDULE), "pipe.transformer"),
    "class of a model": (lambda: entering(Toy, ADAPTER, SCHEDULE), "class Toy itself: make an"),
    "class of an adapter": (
        lambda: entering(MODEL, PatternAdapter, SCHEDULE),
        "class PatternAdapter itself",
    ),
    "class of a schedule": (lambda: entering(MODEL, ADAPTER, Schedule), "class Schedule itself"),
    "model for adapter": (lambda: entering(MODEL, MODEL, SCHEDULE), "`adapter` must be .*swapped"),
    "name of an adapter": (lambda: entering(MODEL, "toy", SCHEDULE), "`adapter` must be"),
    "no adapter": (lambda: entering(MODEL, None, SCHEDULE), "`adapter` must be .* not None"),
    "calibration for schedule": (
        lambda: entering(MODEL, ADAPTER, CALIBRATION),
        r"not a Calibration; create one",
    ),
    "one name": (
        lambda: entering(MODEL, ADAPTER, SCHEDULE, branches="cond"),
        r"`branches` must be several names, such as \('cond',\)",
    ),
    "attach": (lambda: attach(MODEL, ADAPTER, "half.json"), "Schedule.load"),  # pyright: ignore[reportArgumentType]
    "plan a path": (lambda: plan("c.safetensors", compute=0.5), r"Calibration.load\('c.safe"),  # pyright: ignore[reportArgumentType]
    "plan a sampler": (lambda: plan(SAMPLER, compute=0.5), r"calibrate\(sampler"),  # pyright: ignore[reportArgumentType]
    "plan a schedule": (lambda: plan(SCHEDULE, compute=0.5), "planned already"),  # pyright: ignore[reportArgumentType]
    "plan a model": (lambda: plan(MODEL, compute=0.5), "create one"),  # pyright: ignore[reportArgumentType]
    "calibrate a model": (lambda: calibrate(MODEL, seeds=[0]), r"Sampler\(model=model"),  # pyright: ignore[reportArgumentType]
    "calibrate a pipeline": (lambda: calibrate(Pipeline(), seeds=[0]), "sampler_of"),  # pyright: ignore[reportArgumentType]
    "calibrate a function": (lambda: calibrate(run, seeds=[0]), r"Sampler\(model=model"),  # pyright: ignore[reportArgumentType]
    "one seed": (lambda: calibrate(SAMPLER, seeds=5), "several seeds, such as range"),  # pyright: ignore[reportArgumentType]
    "fit a path": (lambda: fit(SAMPLER, "half.json", seeds=[0]), "Schedule.load"),  # pyright: ignore[reportArgumentType]
    "fit swapped": (lambda: fit(SCHEDULE, SAMPLER, seeds=[0]), "`sampler` must be .*swapped"),  # pyright: ignore[reportArgumentType]
    "fit one seed": (lambda: fit(SAMPLER, SCHEDULE, seeds=3), "several seeds"),  # pyright: ignore[reportArgumentType]
    "evaluate one": (lambda: evaluate(SAMPLER, SCHEDULE, seeds=[0]), "schedules by name"),  # pyright: ignore[reportArgumentType]
    "evaluate a list": (lambda: evaluate(SAMPLER, [SCHEDULE], seeds=[0]), "by name.*not a list"),  # pyright: ignore[reportArgumentType]
    "evaluate paths": (
        lambda: evaluate(SAMPLER, {"half": "half.json"}, seeds=[0]),  # pyright: ignore[reportArgumentType]
        r"`schedules\['half'\]` must be a Schedule, .*Schedule.load",
    ),
    "transfer a path": (lambda: transfer("c.safetensors", SAMPLER), "Calibration.load"),  # pyright: ignore[reportArgumentType]
    "transfer swapped": (lambda: transfer(SAMPLER, CALIBRATION), "`calibration` must be"),  # pyright: ignore[reportArgumentType]
    "sampler of a pipeline": (
        lambda: Sampler(model=Pipeline(), adapter=ADAPTER, run=run),  # pyright: ignore[reportArgumentType]
        "pipe.transformer",
    ),
    "sampler without a function": (
        lambda: Sampler(model=MODEL, adapter=ADAPTER, run=5),  # pyright: ignore[reportArgumentType]
        "`run` must be a function of a seed",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_was_given_and_what_to_do_is_told(mistake: str):
    act, message = MISTAKES[mistake]
    with pytest.raises(SmoothCacheError, match=message) as caught:
        act()
    assert "\n" not in str(caught.value)
    assert not vars(MODEL).get("_smoothcache_attached")


def test_a_run_of_one_evaluation_leaves_nothing_to_skip():
    toy = Toy()

    def one(seed: int) -> None:
        del seed
        sample(toy, STEPS[:1])

    for sensitivity in (0, 1):
        sampler = Sampler(model=toy, adapter=ADAPTER, run=one)
        calibration = calibrate(sampler, seeds=[0], sensitivity=sensitivity, progress=False)
        with pytest.raises(SmoothCacheError, match="one evaluation leaves nothing to skip"):
            plan(calibration, compute=0.5)


def test_an_adapter_of_ones_own_is_none_the_less_one():
    class Own(PatternAdapter):
        pass

    own = copy.copy(Own(name="toy", patterns=ADAPTER.patterns))
    attach(nn.Module.eval(Toy()), own, SCHEDULE).detach(quietly=True)
    assert isinstance(CALIBRATION, Calibration)
