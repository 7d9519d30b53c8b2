"""Loading broken files: refused by an error of this library, or good for all that comes after."""

import random
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from smoothcache_core import Calibration, Schedule, attach, plan
from smoothcache_core.errors import (
    AdapterError,
    CalibrationError,
    ScheduleError,
    SmoothCacheError,
)
from smoothcache_core.sources import smooth

from tools.fuzz.mutants import broken_bytes, broken_calibration, broken_json
from tools.fuzz.originals import ADAPTER, Originals, Tiny


@dataclass(kw_only=True)
class Outcome:
    """What became of the mutants.

    Attributes:
        counts: Mutants by what came of them: `refused`, `accepted` or `wrong`.
        wrong: What was wrong, by the first mutant for which it was.
    """

    counts: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, bytes] = field(default_factory=dict)

    def add(self, content: bytes, try_it: Callable[[], str]) -> None:
        """Try one mutant, and count what comes of it."""
        try:
            found = try_it()
        except Exception as error:  # whatever it is, it is what is looked for
            found = f"{type(error).__name__}: {str(error).split(chr(10))[0][:80]}"
        self.counts[found if found in ("refused", "accepted") else "wrong"] += 1
        if found not in ("refused", "accepted"):
            self.wrong.setdefault(found, content)


def fuzzed(originals: Originals, folder: Path, mutants: int, seed: int = 0) -> dict[str, Outcome]:
    """Return what becomes of so many mutants of schedules, and of as many of calibrations.

    Args:
        originals: Good files.
        folder: Where mutants are written, one over the other.
        mutants: How many of each.
        seed: Of the mutants.
    """
    path, again, model = folder / "mutant", folder / "again", Tiny()
    trials = {
        "schedules": (originals.schedules, _broken_schedule, partial(_try_schedule, model)),
        "calibrations": (
            originals.calibrations,
            _broken_calibration,
            partial(_try_calibration, set()),
        ),
    }
    outcomes = {}
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name, (files, break_one, try_one) in trials.items():
            outcomes[name] = Outcome()
            for content in _broken(files, break_one, mutants, seed):
                path.write_bytes(content)
                outcomes[name].add(content, partial(try_one, path, again))
    return outcomes


def _broken(
    files: Sequence[bytes],
    break_one: Callable[[bytes, random.Random], bytes],
    mutants: int,
    seed: int,
) -> Iterable[bytes]:
    chance = random.Random(seed)
    for number in range(mutants):
        yield break_one(files[number % len(files)], chance)


def _broken_schedule(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return broken_bytes(content, chance)
    return broken_json(content.decode(), chance).encode("utf-8", "surrogatepass")


def _broken_calibration(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return broken_bytes(content, chance)
    return broken_calibration(content, chance)


# ---------------------------------------------------------------------------- what must hold


def _try_schedule(model: Tiny, path: Path, again: Path) -> str:
    try:
        schedule = Schedule.load(path)
    except ScheduleError:
        return "refused"
    _check_schedule(schedule, again)
    for call in (
        schedule.compute_fraction,
        schedule.predicted_speedup,
        schedule.predicted_bytes,
        partial(schedule.exported, "smoothcache-v1"),
        lambda: attach(model, ADAPTER, schedule).detach(),
        lambda: repr(schedule),
    ):
        _or_refused(call, AdapterError, ScheduleError)
    return "accepted"


def _try_calibration(planned: set[bytes], path: Path, again: Path) -> str:
    try:
        calibration = Calibration.load(path)
    except CalibrationError:
        return "refused"
    if Calibration.load(calibration.save(again)) != calibration:
        raise AssertionError("a saved calibration is another one when it is loaded")
    content = again.read_bytes()
    if content in planned:  # what was broken is not looked at, such as the order of fields
        return "accepted"
    planned.add(content)
    for call in (
        partial(plan, calibration, compute=0.6),
        partial(plan, calibration, compute=0.7, target="kind"),
        partial(smooth, calibration, alpha=0.3),
        lambda: calibration.spread() is calibration.curves(),
        lambda: repr(calibration),
    ):
        made = _or_refused(call, CalibrationError, ScheduleError)
        if isinstance(made, Schedule):
            _check_schedule(made, again)
    return "accepted"


def _check_schedule(schedule: Schedule, again: Path) -> None:
    if Schedule.load(schedule.save(again)) != schedule:
        raise AssertionError("a saved schedule is another one when it is loaded")


def _or_refused(call: Callable[[], Any], *errors: type[SmoothCacheError]) -> Any:
    try:
        return call()
    except errors:
        return None
