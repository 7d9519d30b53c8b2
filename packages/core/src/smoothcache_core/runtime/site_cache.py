"""Following the schedule at the sites: computing, keeping and filling."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from smoothcache_core.calls.clock import Tick
from smoothcache_core.errors import AttachError
from smoothcache_core.outputs.parked import Parked, parked_leaves
from smoothcache_core.outputs.tensors import detached, flat
from smoothcache_core.runtime.keeping import SiteKeeper, is_kept, kept_bytes
from smoothcache_core.runtime.one_pass import OnePass
from smoothcache_core.runtime.recipe import Recipe
from smoothcache_core.runtime.remarks import Remarks
from smoothcache_core.runtime.scales import Scales
from smoothcache_core.runtime.shelf import Line, Shelf
from smoothcache_core.runtime.store import CacheStats, TensorStore, alone
from smoothcache_core.schedule.fill import MOST_TERMS
from smoothcache_core.schedule.timeline import (
    COMPUTE,
    FILL,
    FILLED,
    REUSE,
    SCALE,
    STORE,
    Timeline,
)
from smoothcache_core.wrapping.site_modules import CallOutputs, FillSources
from smoothcache_core.wrapping.sites import WrappedSite

_WIDTH = MOST_TERMS + 1
"""Columns of the table of coefficients: more than any fill has terms, and four of float32 are 16
bytes, so that views of all rows are aligned alike."""


Refit = Callable[[str, int, Sequence[CallOutputs], CallOutputs], Sequence[float]]
"""Gives the coefficients of a fill from the path of its site, its evaluation, the outputs that it
combines, the newest first, and what the site computes instead."""


_Like = Tensor | Parked
"""What tells a device and a data type: a tensor, or one that was put away."""


class Coefficients:
    """The coefficients of all fills as one table, staged once for each device and data type.

    Args:
        timelines: Those of all sites; each of their different fills becomes one row.
    """

    def __init__(self, timelines: Iterable[Timeline]) -> None:
        used = (
            weights
            for timeline in timelines
            for mode, weights in zip(timeline.modes, timeline.weights, strict=True)
            if mode == FILL
        )
        self._rows = {weights: row for row, weights in enumerate(dict.fromkeys(used))}
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def row(self, weights: tuple[float, ...], terms: int, like: Sequence[_Like]) -> Tensor:
        """Return `weights` and zeros up to `terms`, (terms,), a view.

        Args:
            weights: Those of one fill.
            terms: At least as many.
            like: Tensors of the device, that decide between float32 and float64.
        """
        place = like[0].device, _wide(like)
        if place not in self._tables:
            self._tables[place] = self._staged(*place)
        return self._tables[place][self._rows[weights], :terms]

    def _staged(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        padded = [(*weights, *[0.0] * (_WIDTH - len(weights))) for weights in self._rows]
        with torch.inference_mode(False):  # it is used in every mode
            return torch.tensor(padded, dtype=dtype).to(device, non_blocking=True)


def _wide(tensors: Sequence[_Like]) -> torch.dtype:
    wide = any(tensor.dtype == torch.float64 for tensor in tensors)
    return torch.float64 if wide else torch.float32


class SiteCache:
    """Leads the wrapped sites through a run.

    Args:
        sites: The sites, as they are wrapped in each of the denoisers that take turns.
        recipes: What happens to each of them, in their order.
        coefficients: Those of all their fills.
        scales: Scales and shifts of their channels.
        store: Where outputs are kept.
        stats: Where it is counted.
        remarks: Warns the user, each thing once.
        graph: Whether gradients flow through what is stored.
        shelf: Where outputs are put away; None if they are kept as they are.
    """

    def __init__(
        self,
        sites: Sequence[Sequence[WrappedSite]],
        recipes: Sequence[Recipe],
        coefficients: Coefficients,
        scales: Scales,
        store: TensorStore,
        stats: CacheStats,
        remarks: Remarks,
        *,
        graph: bool = False,
        shelf: Shelf | None = None,
    ) -> None:
        for wrapped in itertools.chain(*sites):
            wrapped.graph = graph
        timelines = [recipe.timeline for recipe in recipes]
        self._members = [
            list(zip(member, timelines, strict=True)) for member in zip(*sites, strict=True)
        ]
        self._recipes = {recipe.site.path: recipe for recipe in recipes}
        self._one_pass: OnePass | None = None

        self._sites = self._members[0] if self._members else []
        self._called: set[tuple[str, str]] = set()
        self._silent: set[tuple[str, str]] = set()
        self._coefficients, self._scales = coefficients, scales
        self._store, self._stats, self._remarks = store, stats, remarks
        self._shelf, self._keepers = shelf, dict[str, SiteKeeper]()
        if shelf is not None:
            self._line = Line(shelf)
            paths = [recipe.site.path for recipe in recipes]
            self._keepers = {path: SiteKeeper(shelf, self._line, path) for path in paths}

    def prepare(self, tick: Tick, one_pass: OnePass | None = None) -> None:
        """Tell every site what to do in the call that begins.

        Args:
            tick: Its place in the run.
            one_pass: How the evaluation is made if its unconditional pass is skipped; else None.

        Raises:
            ScheduleError: An output of both passes cannot be divided.
        """
        self._one_pass = one_pass
        if self._members:
            self._sites = self._members[tick.member]
        if tick.handed_over:
            self._forget_other(tick)
        if self._shelf is not None:
            self._line.begin()
        for wrapped, timeline in self._sites:
            wrapped.keeper = self._keepers.get(wrapped.site.path)
            mode = timeline.modes[tick.evaluation]
            if (wrapped.site.path, tick.branch) in self._silent:
                mode = COMPUTE
            if mode in FILLED:
                if self._prepare_fill(wrapped, timeline, tick):
                    continue
                self._stats.recomputed += 1
                mode = STORE
            wrapped.prepare(mode)

    def _note_called(self, wrapped: WrappedSite, tick: Tick) -> bool:
        """Return whether a site was called, or is called in other conditioning passes only.

        One that attends to another modality is so, where guidance isolates them.

        Raises:
            AttachError: It was not called, and is no such site.
        """
        path, here = wrapped.site.path, (wrapped.site.path, tick.branch)
        if wrapped.calls:
            self._called.add(here)
            self._silent.discard(here)
            return True
        if here in self._called or not any(known == path for known, _ in self._called):
            raise AttachError(
                f"{path!r} was not called in evaluation {tick.evaluation}: either the model does "
                "not call it as a module (the adapter does not fit), or a hook put on after the "
                "cache bypasses it, or another module stands in its place since (a LoRA put on or "
                "taken off); attach the cache last"
            )
        self._silent.add(here)
        return False

    def _forget_other(self, tick: Tick) -> None:
        """Drop what the sites of another denoiser gave: they never fill those of this one."""
        for wrapped, _ in self._sites:
            self._store.drop(tick.branch, wrapped.site.path)

    def refill(self, tick: Tick, compute: Callable[[], object], refit: Refit) -> None:
        """Compute once what this evaluation fills, and fill it by other coefficients.

        Args:
            tick: The evaluation that was prepared.
            compute: Calls the denoiser past the cache, all its sites computed.
            refit: Gives the coefficients.
        """
        filled = [
            (wrapped, timeline, outputs)
            for wrapped, timeline in self._sites
            if timeline.modes[tick.evaluation] == FILL
            and (outputs := self._sources(wrapped, timeline, tick))
        ]
        if not filled:
            return
        for wrapped, _, _ in filled:
            wrapped.prepare(STORE)
        compute()
        computed = [wrapped.kept() for wrapped, _, _ in filled]
        self.prepare(tick)
        for (wrapped, timeline, outputs), values in zip(filled, computed, strict=True):
            back = self._shelf.fetched if self._shelf else lambda each: each
            found = refit(wrapped.site.path, tick.evaluation, back(outputs), back(values))
            like = _like(outputs[0])
            weights = torch.zeros(timeline.terms, dtype=_wide(like))
            weights[: len(outputs)] = torch.tensor(found)
            self._fill(wrapped, outputs, timeline.terms, weights.to(like[0].device))

    def _sources(self, wrapped: WrappedSite, timeline: Timeline, tick: Tick) -> list[CallOutputs]:
        """Return the kept outputs that an evaluation is filled from; empty if some are missing."""
        path, evaluation = wrapped.site.path, tick.evaluation
        entries = self._store.stored(tick.branch, path)
        if self._one_pass is None:
            return [entries[source] for source in timeline.usable(evaluation, entries)]
        kept = self._store.stored(alone(tick.branch), path)
        return [
            kept[source] if source in kept else self._of_one_pass(path, source, tick)
            for source in timeline.usable(evaluation, {**entries, **kept})
        ]

    def _of_one_pass(self, path: str, source: int, tick: Tick) -> CallOutputs:
        """Return what was kept of both passes as an evaluation with one of them needs it."""
        assert self._one_pass is not None
        recipe, passes = self._recipes[path], self._store.passes(path, source)
        if self._shelf is not None:
            passes = {branch: self._shelf.fetched(values) for branch, values in passes.items()}
        over = recipe.last_with_both(source) < tick.evaluation
        if recipe.mean:
            values = self._one_pass.mean(passes)
        else:
            values = self._one_pass.conditional(passes, tick.branch, copied=over)
        if self._shelf is not None:
            values = tuple(self._shelf.parked(value) for value in values)
        if over:  # from now on it is needed of this pass only
            self._store.discard(path, source)
            size = sum(kept_bytes(value) for value in values)
            self._store.put(alone(tick.branch), path, source, values, size)
        return values

    def _prepare_fill(self, wrapped: WrappedSite, timeline: Timeline, tick: Tick) -> bool:
        """Return whether what is kept is enough."""
        evaluation = tick.evaluation
        outputs = self._sources(wrapped, timeline, tick)
        if not outputs:
            return False
        if timeline.modes[evaluation] == REUSE:
            if keeper := self._keepers.get(wrapped.site.path):
                keeper.expect(outputs[:1])
                wrapped.prepare_arrival(REUSE, outputs[0])
            else:
                wrapped.prepare(REUSE, outputs[0])
            return True
        tensors = _like(outputs[0])
        if timeline.modes[evaluation] == SCALE:
            return self._scale(wrapped, outputs[:1], evaluation)
        if len({len(values) for values in outputs}) > 1 or not tensors:
            return False
        weights = self._coefficients.row(timeline.weights[evaluation], timeline.terms, tensors)
        self._fill(wrapped, outputs, timeline.terms, weights)
        return True

    def _scale(self, wrapped: WrappedSite, outputs: Sequence[CallOutputs], evaluation: int) -> bool:
        """Let a site be filled with its newest output, scaled and shifted channel by channel."""
        path = wrapped.site.path
        channels = self._scales.at(path, evaluation, _like(outputs[0][:1]))
        if keeper := self._keepers.get(path):
            keeper.expect(outputs, channels=channels)
            wrapped.prepare_arrival(SCALE, outputs[0])
        else:
            wrapped.prepare_scale(outputs[0], channels)
        return True

    def _fill(
        self, wrapped: WrappedSite, outputs: Sequence[CallOutputs], terms: int, weights: Tensor
    ) -> None:
        """Let a site be filled with the weighted sum of kept outputs; `weights` is (terms,)."""
        if keeper := self._keepers.get(wrapped.site.path):
            keeper.expect(outputs, weights)
            wrapped.prepare_arrival(FILL, outputs[0])
        else:
            wrapped.prepare_fill(_padded(outputs, terms), weights)

    def collect(self, tick: Tick) -> None:
        """Take what the sites kept, count, and drop what is not needed any more."""
        for wrapped, timeline in self._sites:
            path, mode = wrapped.site.path, wrapped.mode
            if not self._note_called(wrapped, tick):
                continue
            self._stats.count(path, filled=mode in FILLED)
            if wrapped.was_changed:
                self._forget_changed(wrapped, tick)
            elif mode == STORE:
                values = _outputs(wrapped)
                size = sum(kept_bytes(value) for value in values)
                branch = alone(tick.branch) if self._one_pass else tick.branch
                self._store.put(branch, path, tick.evaluation, values, size)
            self._release(path, timeline, tick)
        self.rest()

    def pass_over(self, tick: Tick) -> None:
        """Drop what is not needed any more after a call that was answered without the sites."""
        for wrapped, timeline in self._sites:
            self._release(wrapped.site.path, timeline, tick)

    def _release(self, path: str, timeline: Timeline, tick: Tick) -> None:
        for branch in (tick.branch, alone(tick.branch)):
            self._store.release(branch, path, timeline, tick.evaluation)

    def _forget_changed(self, wrapped: WrappedSite, tick: Tick) -> None:
        """Drop what was kept of a site whose outputs are changed in place, and copy from now on."""
        path, wrapped.copies = wrapped.site.path, True
        self._store.drop(tick.branch, path)
        self._remarks.once(
            f"the model modifies the output of {path!r} in place, so the cached tensor is "
            "discarded; from now on a copy is cached, which costs a little time",
            about="changed in place",
        )

    def rest(self) -> None:
        """Let the sites compute and keep nothing, should somebody call them past the cache."""
        for wrapped, _ in self._sites:
            wrapped.prepare(COMPUTE)


def _like(outputs: Sequence[Any]) -> list[_Like]:
    """Return the tensors of the calls of one evaluation, put away or not."""
    return [*parked_leaves(outputs)] or [tensor for each in outputs for tensor in flat(each)]


def _padded(outputs: Sequence[CallOutputs], terms: int) -> FillSources:
    """Return for each call its outputs, the newest first, repeated up to `terms` of them.

    One tensor object given twice is another graph to torch.compile, so what repeats is a view.
    """
    return tuple(
        (*calls, *(detached(calls[0]) for _ in range(terms - len(calls))))
        for calls in zip(*outputs, strict=True)
    )


def _outputs(wrapped: WrappedSite) -> CallOutputs:
    """Return what a site kept, if it can be kept."""
    values = wrapped.kept()
    strange = [type(value).__name__ for value in values if not is_kept(value)]
    if strange:
        raise AttachError(
            f"{wrapped.site.path!r} gives a {strange[0]}; only a tensor or a tuple of tensors can "
            "be cached"
        )
    return values
