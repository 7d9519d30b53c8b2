"""Refining a schedule by the error that it really makes: local search, one move at a time."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.calibrating.probe import probed
from smoothcache_core.documents import read_document
from smoothcache_core.errors import ScheduleError
from smoothcache_core.files import write_atomically
from smoothcache_core.fitting.fitter import (
    Diverged,
    Fitter,
    has_anchors,
    measured_error,
    skips_whole,
)
from smoothcache_core.locking import locked
from smoothcache_core.optimize.local_search import moves
from smoothcache_core.optimize.masks import Mask
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.provenance import Aim
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.values import NonNegative, Text, first_problem

_DIVERGED = 1e300
"""Stands for the error of a trial that ends in NaN or infinity, which JSON does not have."""


def refined(
    sampler: Sampler,
    schedule: Schedule,
    seeds: Sequence[int],
    trials: int,
    checkpoint: str | Path | None,
    *,
    toward: Aim = "plain",
    progress: bool,
) -> Schedule:
    """Improve a schedule of whole evaluations by trying what moving one of them really does.

    Every trial fits the moved schedule and measures its error. What was tried is not tried again.
    See `fit`, whose `trials` these are, for the arguments and errors.

    Returns:
        The best schedule, fitted, with its measured error.
    """
    if not skips_whole(schedule):
        raise ScheduleError("only schedules that skip whole evaluations can be refined")
    with locked(checkpoint, ScheduleError):
        known = _known(checkpoint, sampler, schedule, seeds, toward)
        fitter = Fitter(sampler, seeds, use_anchor=has_anchors(schedule), toward=toward)
        with tqdm(total=trials, desc="refining", unit="trial", disable=not progress) as bar:
            best = _Descent(schedule, fitter, known, trials, bar).run()
        return fitter.fit(_with(schedule, best))


class _Trials(BaseModel):
    """The file of what was tried: errors by rows."""

    model_config = ConfigDict(extra="forbid")

    identity: Text
    fingerprint: Fingerprint
    errors: Mapping[Text, NonNegative]


def _known(
    checkpoint: str | Path | None,
    sampler: Sampler,
    schedule: Schedule,
    seeds: Sequence[int],
    toward: Aim,
) -> "_Known":
    """Return what was tried before, by the same sampler; a look at a run says whether it is."""
    fingerprint = Fingerprint() if checkpoint is None else probed(sampler, seeds[0])
    return _Known(checkpoint, _identity(schedule, seeds, sampler.samples, toward), fingerprint)


class _Known:
    """Errors of what was tried, in memory and in a file."""

    def __init__(self, path: str | Path | None, identity: str, fingerprint: Fingerprint) -> None:
        self._path = path
        self._identity = identity
        self._fingerprint = fingerprint
        self.errors: dict[str, float] = {}
        if path is not None and Path(path).exists():
            self.errors = self._load(Path(path))

    def _load(self, path: Path) -> dict[str, float]:
        try:
            known = _Trials.model_validate(read_document(path, "trials", ScheduleError))
        except ValidationError as error:
            reason = first_problem(error, "trials")
            raise ScheduleError(f"{str(path)!r} holds no trials: {reason}") from error
        if known.identity != self._identity:
            raise ScheduleError(
                f"{str(path)!r} holds trials of another schedule, model or seeds; use another file"
            )
        reasons = self._fingerprint.mismatches(known.fingerprint)
        if reasons:
            raise ScheduleError(
                f"{str(path)!r} holds trials of something else: {'; '.join(reasons)}; use another "
                "file"
            )
        return dict(known.errors)

    def add(self, key: str, error: float) -> None:
        self.errors[key] = error
        if self._path is not None:
            fingerprint = self._fingerprint.model_dump(mode="json", exclude_none=True)
            known = {"identity": self._identity, "fingerprint": fingerprint, "errors": self.errors}
            write_atomically(self._path, json.dumps(known).encode())


class _Descent:
    """Takes a move whenever it lowers the error, from the late evaluations to the early ones."""

    def __init__(
        self, schedule: Schedule, fitter: Fitter, known: _Known, trials: int, bar: "tqdm[Any]"
    ) -> None:
        self._schedule = schedule
        self._fitter = fitter
        self._known = known
        self._left = trials
        self._bar = bar
        self._tried: set[str] = set()

    def run(self) -> Mask:
        best = _mask(self._schedule)
        least = self._error(best)
        while True:
            before = best
            for moved in self._around(best):
                error = self._error(moved)
                if error is None:
                    return best
                if least is None or error < least:
                    best, least = moved, error
                    break
            if best == before:
                return best

    def _around(self, mask: Mask) -> Iterator[Mask]:
        for position in reversed(range(1, self._schedule.evaluations)):
            yield from moves(mask, position)

    def _error(self, mask: Mask) -> float | None:
        """Return the measured error; None if no trials are left."""
        key = _key(mask)
        if key not in self._tried:
            if not self._left:
                return None
            self._left -= 1
            self._tried.add(key)
            self._bar.update()
        if key not in self._known.errors:
            self._known.add(key, self._measured(mask))
        return self._known.errors[key]

    def _measured(self, mask: Mask) -> float:
        try:
            return measured_error(self._fitter.fit(_with(self._schedule, mask)))
        except Diverged:
            return _DIVERGED


def _identity(schedule: Schedule, seeds: Sequence[int], samples: int, toward: Aim) -> str:
    settings: list[object] = [
        schedule.fingerprint.model_dump_json(),
        _key(_mask(schedule)),
        has_anchors(schedule),
    ]
    settings += [toward] if toward == "exact" else []
    return hashlib.sha256(repr((settings, list(seeds), samples)).encode()).hexdigest()[:16]


def _mask(schedule: Schedule) -> Mask:
    return Mask(
        denoiser=tuple(map(bool, schedule.row(DENOISER))),
        guidance=tuple(map(bool, schedule.row(GUIDANCE))),
    )


def _key(mask: Mask) -> str:
    pairs = zip(mask.denoiser, mask.guidance, strict=True)
    return "".join("1" if one and both else "c" if one else "." for one, both in pairs)


def _with(schedule: Schedule, mask: Mask) -> Schedule:
    """Return the schedule with other rows, and fills that are yet to be fitted."""
    rows = {DENOISER.kind: tuple(map(int, mask.denoiser))}
    if GUIDANCE.kind in schedule.rows:
        rows[GUIDANCE.kind] = tuple(map(int, mask.guidance))
    return schedule.changed(rows=rows, fills={}, corrected=None)
