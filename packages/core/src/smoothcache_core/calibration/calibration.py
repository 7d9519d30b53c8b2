"""The calibration artifact: how much every site's output changes from evaluation to evaluation.

Errors are stored as sums over samples of values rounded to multiples of 2^-32. Such sums are exact
in float64, so they do not depend on the order in which samples were added: merging two halves gives
the very numbers of the whole.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import numpy as np

from smoothcache_core.adapters.levels import Level, level_of
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site
from smoothcache_core.calibration.consistency import check_calibration
from smoothcache_core.calibration.dynamics import Dynamics
from smoothcache_core.calibration.file import (
    FORMAT,
    LARGEST_FILE,
    VERSION,
    Header,
    decoded,
    encoded,
)
from smoothcache_core.calibration.influence import Influence
from smoothcache_core.calibration.outcomes import Outcome, ordered
from smoothcache_core.errors import CalibrationError, SmoothCacheError
from smoothcache_core.files import read_file, write_atomically
from smoothcache_core.numerics.arrays import Array
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.schedule import Schedule

Part = TypeVar("Part")


_NO_SITES = "none, whole evaluations only"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Calibration:
    """Relative L1 errors of every site, branch, lag and evaluation, over any number of samples.

    With o_i the output of a site at evaluation i, the error at lag k is
    ||o_i - o_{i+k}||_1 / ||o_{i+k}||_1 (SmoothCache, arXiv 2411.10510, eq. 4), per sample.

    Example:
        >>> calibration = calibrate(sampler, seeds=[4, 5], progress=False)
        >>> calibration.curves(per="kind")["block"].shape  # (lags, evaluations)
        (12, 8)
        >>> path = calibration.save("calibration.safetensors")
        >>> more = calibrate(sampler, seeds=[6], progress=False)
        >>> Calibration.merge(Calibration.load(path), more).seeds
        (4, 5, 6)

    Attributes:
        sites: The sites, in the adapter's order; one dimension of the arrays below. None if only
            whole runs were measured.
        branches: Names of the conditioning passes; `("",)` if there is one.
        totals: Sum of the errors over samples, (sites, branches, lags, evaluations). Entry [s, b, k
            - 1, i] compares evaluation i with i + k; NaN where i + k is past the end, or where the
            branch pauses.
        squares: Sum of their squares, same shape.
        samples: Number of samples summed, at least 1.
        seeds: Seeds of the runs recorded, ascending.
        fingerprint: What was measured: model, adapter, solver, evaluations and shapes.
        cost: MACs and bytes of one evaluation at the measured shapes.
        products: Inner products of the outputs of every site, per entry, summed over samples in
            exact parts, (3, sites, evaluations, lags + 1). Entry [s, i, k] is of evaluations i and
            i - k over all branches. None if they are not known.
        dynamics: What was learned of whole runs: the solver, and how the denoiser answers to
            errors; None without sensitivities.
        influence: How much errors of the sites' outputs move the denoiser's output; None without
            sensitivities.
        remark: Why there are no `dynamics`, if that was tried; else empty.
        coarser: What was measured of coarser sites, whole blocks or spans of blocks, in the same
            runs: a calibration each.
        outcomes: What some plans of it really did, which corrects predictions; see `verify`.

    Raises:
        CalibrationError: Shapes do not fit, there is no sample, or a number is negative, NaN or
            infinite where it cannot be.
    """

    sites: tuple[Site, ...]
    branches: tuple[str, ...]
    totals: Array
    squares: Array
    samples: int
    seeds: tuple[int, ...]
    fingerprint: Fingerprint
    cost: Cost
    products: Array | None = None
    dynamics: Dynamics | None = None
    influence: Influence | None = None
    remark: str = ""
    coarser: tuple["Calibration", ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    def __post_init__(self) -> None:
        check_calibration(self)
        for each in self.coarser:
            known, other = self.fingerprint, each.fingerprint
            if each.coarser or other.changed(adapter=known.adapter, adapter_data=None) != (
                known.changed(adapter_data=None)
            ):
                raise CalibrationError("coarser sites were measured in other runs than these")
            if each.seeds != self.seeds or each.samples != self.samples:
                raise CalibrationError("coarser sites were measured with other seeds than these")

    @property
    def evaluations(self) -> int:
        """Evaluations of one run."""
        return self.totals.shape[3]

    @property
    def max_lag(self) -> int:
        """The largest lag measured."""
        return self.totals.shape[2]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of the sites, in order of first appearance."""
        return tuple(dict.fromkeys(site.kind for site in self.sites))

    @property
    def level(self) -> Level:
        """What the sites are: the parts that an adapter names, blocks, or spans of blocks."""
        return level_of(self.fingerprint.adapter)

    @property
    def levels(self) -> dict[Level, "Calibration"]:
        """What was measured of each level of sites."""
        return {each.level: each for each in (self, *self.coarser)}

    def of(self, schedule: Schedule) -> "Calibration":
        """Return what was measured of the sites that a schedule is of.

        Args:
            schedule: Planned from this calibration.
        """
        own = (e for e in self.coarser if e.fingerprint.adapter == schedule.fingerprint.adapter)
        return next(own, self)

    def kept_bytes(self) -> dict[str, int]:
        """Return the bytes of one kept copy of all outputs, by what is kept, all branches counted.

        A fill of several terms keeps as many copies.

        Returns:
            `"denoiser"`, the output of a whole evaluation; `"guidance"`, the guidance difference;
            then kinds of sites, level by level.
        """
        sizes = {each.kind: self.cost.kept_bytes(each.kind) for each in (DENOISER, GUIDANCE)}
        for known in self.levels.values():
            sizes |= {kind: known.cost.kept_bytes(kind) for kind in known.kinds}
        return sizes

    def at(self, *costs: Cost) -> Self:
        """Return the calibration for another size: resolution, frames or batch.

        What was measured of errors is taken to hold; MACs and bytes, and with them what fits into
        memory, are those of the other size.

        Example:
            >>> from smoothcache_core.calibrating import cost_from_shapes
            >>> calibration.at(cost_from_shapes(sampler)).cost == calibration.cost
            True

        Args:
            costs: Costs at that size, one for each level of sites that is to be planned: see
                `calibrating.cost_from_shapes`. Levels without one are left out.

        Raises:
            CalibrationError: None of them is of the sites of a level.
        """
        fitting = {
            level: replace(known, cost=cost, dynamics=_slower(known, cost), coarser=())
            for level, known in self.levels.items()
            for cost in costs
            if [each.path for each in cost.sites] == [site.path for site in known.sites]
        }
        if not fitting:
            raise CalibrationError(
                "these costs are not of the sites that were calibrated; give those of the same "
                "model and adapter"
            )
        first, *others = fitting.values()
        return cast(Self, replace(first, coarser=tuple(others)))

    def mean(self) -> Array:
        """Return the mean error over samples, (sites, branches, lags, evaluations)."""
        return self.totals / self.samples

    def spread(self) -> Array:
        """Return the standard deviation over samples (0 for a single sample), same shape.

        It is infinite where any error was.
        """
        with np.errstate(invalid="ignore"):
            sums = self.squares - self.totals**2 / self.samples
        if self.samples == 1:
            sums = np.where(np.isnan(sums), sums, 0.0)  # but for the rounding of squares
        variance = sums / max(self.samples - 1, 1)
        return np.where(np.isinf(self.totals), np.inf, np.sqrt(np.maximum(variance, 0.0)))

    def curves(self, *, per: str = "kind") -> dict[str, Array]:
        """Return mean error curves over branches, (lags, evaluations) each.

        Args:
            per: `"kind"` averages the sites of a kind, as SmoothCache does; `"site"` does not.

        Raises:
            CalibrationError: `per` is neither.
        """
        mean = self.mean().mean(axis=1)
        if per == "site":
            return {site.path: mean[index] for index, site in enumerate(self.sites)}
        if per != "kind":
            raise CalibrationError(f"curves are per 'kind' or per 'site', not per {per!r}")
        members = {k: [i for i, s in enumerate(self.sites) if s.kind == k] for k in self.kinds}
        return {kind: mean[indices].mean(axis=0) for kind, indices in members.items()}

    # ------------------------------------------------------------------ merging

    @classmethod
    def merge(cls, *parts: Self) -> Self:
        """Return the calibration of all samples of `parts`; exactly the same in any order.

        Args:
            parts: Calibrations of the same thing on different seeds, at least one.

        Raises:
            CalibrationError: Nothing to merge, a seed occurs twice, or the parts were measured
                on different things.
        """
        if not parts:
            raise CalibrationError("nothing to merge")
        first, *others = parts
        for other in others:
            first._check_mergeable(other)
        seeds = [seed for part in parts for seed in part.seeds]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            raise CalibrationError(
                f"seeds {twice} occur in more than one part; they would count twice"
            )
        return cls(
            sites=first.sites,
            branches=first.branches,
            totals=np.sum([part.totals for part in parts], axis=0),
            squares=np.sum([part.squares for part in parts], axis=0),
            samples=sum(part.samples for part in parts),
            seeds=tuple(sorted(seeds)),
            fingerprint=_common_fingerprint(parts),
            cost=min((part.cost for part in parts), key=Cost.model_dump_json),
            products=_sum_of([part.products for part in parts]),
            dynamics=_merged(Dynamics.merge, [part.dynamics for part in parts]),
            influence=_merged(Influence.merge, [part.influence for part in parts]),
            remark=min((part.remark for part in parts if part.remark), default=""),
            coarser=tuple(
                Calibration.merge(*each)
                for each in zip(*(part.coarser for part in parts), strict=True)
            ),
            outcomes=ordered(each for part in parts for each in part.outcomes),
        )

    def _check_mergeable(self, other: Self) -> None:
        reasons = self.fingerprint.mismatches(other.fingerprint)
        if self.sites != other.sites or self.branches != other.branches:
            reasons.append("the sites or branches differ")
        if self.max_lag != other.max_lag:
            reasons.append(f"max_lag is {other.max_lag} instead of {self.max_lag}")
        if [*self.levels] != [*other.levels]:
            reasons.append(f"sites are {[*other.levels]} instead of {[*self.levels]}")
        if reasons:
            raise CalibrationError(f"cannot merge calibrations: {'; '.join(reasons)}")

    def __eq__(self, other: object) -> bool:
        """Compare everything that was measured; not what a checkpoint says of the inputs."""
        if not isinstance(other, Calibration):
            return False
        here, there = self._header(), other._header()
        here["fingerprint"] = self.fingerprint.without_inputs().model_dump(mode="json")
        there["fingerprint"] = other.fingerprint.without_inputs().model_dump(mode="json")
        same = here == there and _same_arrays(self._arrays(), other._arrays())
        return same and self.coarser == other.coarser

    def __repr__(self) -> str:
        """Say in a few lines what was measured, and on what."""
        known, adapter = self.fingerprint, self.fingerprint.adapter or "unknown"
        kinds = Counter(site.kind for site in self.sites)
        parts = {
            "errors": bool(self.sites) and self.max_lag > 0,
            "inner products": bool(self.sites) and self.products is not None,
            "solver response": self.dynamics is not None and self.dynamics.measured,
            "outcomes of plans": bool(self.outcomes),
            "site influence": self.influence is not None and bool(self.influence.counts.any()),
        }
        lines = [
            f"Calibration of {known.model_class or 'a model'}, adapter {adapter}",
            f"solver {known.solver or 'unknown'}, {self.evaluations} evaluations",
            f"{_counted(self.samples, 'sample')} of {_counted(len(self.seeds), 'seed')}, lags "
            f"up to {self.max_lag}",
            f"sites: {', '.join(f'{n} {kind}' for kind, n in kinds.items()) or _NO_SITES}",
            f"measured: {', '.join(name for name, there in parts.items() if there) or 'nothing'}",
            *(f"{each.level}: {len(each.sites)}" for each in self.coarser),
        ]
        return "\n  ".join([*lines, *([f"remark: {self.remark}"] if self.remark else [])])

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    # ------------------------------------------------------------------ files

    def save(self, path: str | Path) -> Path:
        """Write the calibration as a safetensors file, in one step.

        Args:
            path: Where to; folders that are not there are made.

        Returns:
            The path.
        """
        return write_atomically(path, encoded(*self._content()))

    def _content(self) -> tuple[dict[str, object], dict[str, Array]]:
        """Return header and arrays of a file; those of coarser sites have a number before them."""
        header, arrays = self._header(), self._arrays()
        if self.dynamics is not None:
            header["dynamics"] = self.dynamics.header() | {"seconds": self.dynamics.seconds}
        parts = [each._content() for each in self.coarser]
        if parts:
            header["coarser"] = [own for own, _ in parts]
        for number, (_, own) in enumerate(parts):
            arrays |= {f"{_prefix(number)}{name}": array for name, array in own.items()}
        return header, arrays

    def _arrays(self) -> dict[str, Array]:
        arrays = {"totals": self.totals, "squares": self.squares}
        if self.products is not None:
            arrays["products"] = self.products
        for part in (self.dynamics, self.influence):
            arrays |= {} if part is None else part.arrays()
        return arrays

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a calibration file.

        Args:
            path: A file that `save` wrote, of format version 2.

        Raises:
            CalibrationError: The file is missing, damaged, or not a calibration of this version.
        """
        content = read_file(path, "calibration", CalibrationError, most=LARGEST_FILE)
        try:
            return cls._from_parts(*decoded(content))
        except SmoothCacheError as error:
            raise CalibrationError(f"{str(path)!r} is not a calibration file: {error}") from error

    def _header(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "sites": [
                [s.path, s.kind, s.block, s.target, list(s.inputs), s.last] for s in self.sites
            ],
            "branches": list(self.branches),
            "samples": self.samples,
            "seeds": list(self.seeds),
            "fingerprint": self.fingerprint.model_dump(mode="json"),
            "cost": self.cost.model_dump(mode="json"),
            "dynamics": None if self.dynamics is None else self.dynamics.header(),
            "remark": self.remark,
            **(
                {"outcomes": [each.model_dump() for each in self.outcomes]} if self.outcomes else {}
            ),
        }

    @classmethod
    def _from_parts(cls, header: Header, arrays: Mapping[str, Array]) -> Self:
        coarser = [
            cls._from_parts(own, _numbered(arrays, number))
            for number, own in enumerate(header.coarser)
        ]
        known = _Named((k, v) for k, v in arrays.items() if not _is_numbered(k, len(coarser)))
        found = cls(
            sites=header.known_sites(),
            branches=header.branches,
            totals=known["totals"],
            squares=known["squares"],
            samples=header.samples,
            seeds=header.seeds,
            fingerprint=header.fingerprint,
            cost=header.cost,
            products=known.get("products"),
            dynamics=header.dynamics and Dynamics.from_parts(known, header.dynamics),
            influence=Influence.from_arrays(known),
            remark=header.remark,
            coarser=tuple(coarser),
            outcomes=header.outcomes,
        )
        extra = sorted(known.keys() - found._arrays().keys())
        if extra:
            raise CalibrationError(f"it holds arrays that are no part of a calibration: {extra}")
        return found


class _Named(dict[str, Array]):
    """Arrays by name, of which a missing one is told."""

    def __missing__(self, name: str) -> Array:
        raise CalibrationError(f"the array {name!r} is missing")


def _prefix(number: int) -> str:
    """Return what the names of arrays of coarser sites begin with."""
    return f"coarser.{number}."


def _is_numbered(name: str, count: int) -> bool:
    return any(name.startswith(_prefix(number)) for number in range(count))


def _numbered(arrays: Mapping[str, Array], number: int) -> dict[str, Array]:
    prefix = _prefix(number)
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _slower(known: Calibration, cost: Cost) -> Dynamics | None:
    """Return what was learned of runs, whose seconds are taken to go by the MACs."""
    if known.dynamics is None or not known.cost.total:
        return known.dynamics
    seconds = known.dynamics.seconds * cost.total / known.cost.total
    return replace(known.dynamics, seconds=seconds)


def _sum_of(parts: Sequence[Array | None]) -> Array | None:
    known = [part for part in parts if part is not None]
    return np.sum(known, axis=0) if len(known) == len(parts) else None


def _merged(merge: Callable[[list[Part]], Part], parts: Sequence[Part | None]) -> Part | None:
    known = [part for part in parts if part is not None]
    return merge(known) if len(known) == len(parts) else None


def _same_arrays(one: Mapping[str, Array], other: Mapping[str, Array]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name], equal_nan=True) for name in one
    )


def _common_fingerprint(parts: Sequence[Calibration]) -> Fingerprint:
    """Return the fingerprint of all parts, with the versions and settings that all agree on."""
    known = [part.fingerprint for part in parts]
    settings = _agreed([each.solver_settings or {} for each in known])
    return known[0].changed(
        versions=_agreed([each.versions for each in known]),
        latent_part=next((each.latent_part for each in known if each.latent_part), None),
        solver_settings=settings or None,
        sampling=_agreed([each.sampling or {} for each in known]) or None,
        adapter_data=next((each.adapter_data for each in known if each.adapter_data), None),
        weights_rounding=max(each.weights_rounding or 0.0 for each in known) or None,
    )


def _agreed(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = mappings
    return {k: v for k, v in first.items() if all(k in m and m[k] == v for m in others)}


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
