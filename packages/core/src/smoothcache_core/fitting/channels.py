"""Fitting scales and shifts of the channels of reused outputs: Block Caching in closed form.

Block Caching (arXiv 2312.03209, section 3.4) trains a scale and a shift for each channel of what a
block reuses, so that it comes near to what the block would have given. For squared errors that is a
straight line through two sets of numbers, so no training is needed: along plain runs the output
that a schedule would keep is held beside the one that it would skip, and of each channel only five
sums over samples and tokens outlive the evaluation.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoothcache_core.adapters.sites import Site
from smoothcache_core.calls.announcements import listening
from smoothcache_core.calls.call import CallReader
from smoothcache_core.calls.clock import Clock, Tick
from smoothcache_core.errors import ScheduleError
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.numerics.least_squares import RIDGE
from smoothcache_core.outputs.tensors import Output, flat
from smoothcache_core.sampling.sampler import Sampler
from smoothcache_core.schedule.channels import Channels
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.wrapping.denoiser import Step, Wrapping, sites_of


class ChannelFitting:
    """Fits scales and shifts for a schedule of sites; its other fills are dropped.

    Args:
        sampler: The model and its sampler.
        schedule: What is computed and what is skipped.

    Raises:
        ScheduleError: It skips no outputs of sites.
    """

    def __init__(self, sampler: Sampler, schedule: Schedule) -> None:
        self._sampler = sampler
        found = sites_of(sampler.adapter, sampler.model)
        self._sites = [site for site in found if 0 in schedule.row(site)]
        if not self._sites:
            raise ScheduleError(
                "this schedule skips no outputs of sites, and only those are scaled and shifted "
                "channel by channel"
            )
        rows = {site.path: schedule.row(site) for site in self._sites}
        self._schedule = schedule.changed(
            rows={**schedule.rows, **rows}, fills={}, channels=None, prediction=None
        )
        self._sums: dict[tuple[str, int], list[Sums]] = {}
        self._widths: dict[str, list[int]] = {}

    def run(self, seed: int) -> None:
        """Take the plain run of one seed into account."""
        plain = _PlainRun(self._sampler)
        probes = [_Probe(plain, self, site, self._schedule.row(site)) for site in self._sites]
        wrapping = Wrapping(self._sampler.model, self._sites, plain, probes=probes)
        try:
            with (
                torch.no_grad(),
                listening(plain.clock, self._sampler.model, self._sampler.scheduler),
            ):
                self._sampler.final_latent(seed)
        finally:
            wrapping.remove()

    def add(self, path: str, evaluation: int, kept: Output, wanted: Output) -> None:
        """Add a pair of outputs of a site: what would be reused, and what it should have been."""
        pairs = list(zip(flat(kept), flat(wanted), strict=True))
        self._widths[path] = [old.shape[-1] for old, _ in pairs]
        sums = self._sums.setdefault((path, evaluation), [Sums() for _ in pairs])
        for known, (old, new) in zip(sums, pairs, strict=True):
            if old.is_floating_point():
                known.add(old, new)

    @property
    def schedule(self) -> Schedule:
        """The schedule with the scales and shifts of the runs so far."""
        made = {site.path: self._of_site(site) for site in self._sites if site.path in self._widths}
        source = self._schedule.source
        settings = {**source.settings, "fill": "scale-shift"}
        return self._schedule.changed(
            channels=Channels.made(made),
            source=Provenance(name=source.name, settings=settings, seeds=source.seeds),
        )

    def _of_site(self, site: Site) -> list[Any]:
        """Return for each tensor of a site its scales and shifts, (skipped, 2, channels)."""
        row, widths = self._schedule.row(site), self._widths[site.path]
        skipped = [evaluation for evaluation, computed in enumerate(row) if not computed]
        return [
            np.stack([self._line(site.path, each, number, width) for each in skipped])
            for number, width in enumerate(widths)
        ]

    def _line(self, path: str, evaluation: int, number: int, width: int) -> Any:
        known = self._sums.get((path, evaluation))
        lines = Sums().line(width) if known is None else known[number].line(width)
        return lines.astype(np.float32)


class Sums:
    """Sums over samples and tokens of one pair of outputs, channel by channel, in float64."""

    def __init__(self) -> None:
        self._count = 0
        self._sums: Array | None = None

    def add(self, kept: Tensor, wanted: Tensor) -> None:
        """Add a pair of tensors of one shape, (..., channels)."""
        x, y = (
            each.detach().reshape(-1, each.shape[-1]).to(_wide(each)) for each in (kept, wanted)
        )
        sums = torch.stack([x.sum(0), y.sum(0), (x * x).sum(0), (x * y).sum(0)])
        found = sums.cpu().double().numpy()
        self._count += len(x)
        self._sums = found if self._sums is None else self._sums + found

    def line(self, width: int) -> Array:
        """Return the scale and the shift of every channel, (2, channels); 1 and 0 without data.

        Where the data do not decide, the scale is near 1, as `numerics.least_squares.ridge` has it.

        Args:
            width: How many channels there are.
        """
        if self._sums is None:
            return np.stack([np.ones(width), np.zeros(width)])
        x, y, squares, products = self._sums / self._count
        pull = RIDGE * squares.mean() + 1e-300
        variance = np.maximum(squares - x * x, 0.0)
        scale = (products - x * y + pull) / (variance + pull)
        return np.stack([scale, y - scale * x])


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.float32 if tensor.device.type == "mps" else torch.float64  # it has no float64


class _PlainRun:
    """Knows at which evaluation a plain run is; the driver of its denoiser."""

    def __init__(self, sampler: Sampler) -> None:
        self.clock = Clock(branches=sampler.branches)
        self._reader = CallReader(sampler.model, sampler.adapter)
        self.tick = Tick(evaluation=0, branch="", new_run=True)
        self.calls: dict[str, int] = defaultdict(int)

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any], member: int) -> Step:
        """See `Driver.begin`."""
        self.tick = self.clock.tick(self._reader.read(args, kwargs, self.clock.context, member))
        self.calls.clear()
        return Step(args, kwargs)

    def end(self, output: Any) -> Any:
        """See `Driver.end`."""
        return output

    def abort(self) -> None:
        """See `Driver.abort`."""


@dataclass
class _Probe:
    """Holds what a site would keep, and pairs it with what it would skip."""

    run: _PlainRun
    fitting: ChannelFitting
    site: Site
    row: Sequence[int]

    def __post_init__(self) -> None:
        self._kept: dict[tuple[str, int], Output] = {}

    def enter(self) -> None:
        """See `Probe.enter`."""

    def leave(self, output: Output) -> None:
        """See `Probe.leave`."""
        path, tick = self.site.path, self.run.tick
        place = tick.branch, self.run.calls[path]
        self.run.calls[path] += 1
        if tick.evaluation >= len(self.row):
            return  # the run is longer than the schedule, which is refused when it is measured
        if tick.broken or tick.handed_over:  # nothing that was kept would be reused
            self._kept.pop(place, None)
        if self.row[tick.evaluation]:
            self._kept[place] = output
        elif place in self._kept:
            self.fitting.add(path, tick.evaluation, self._kept[place], output)
