"""Schedules: for each site and evaluation, compute or fill. Immutable, validated, portable."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import BeforeValidator, Field, model_validator

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site
from smoothcache_core.documents import json_text, read_document
from smoothcache_core.errors import ScheduleError, SmoothCacheWarning
from smoothcache_core.files import write_atomically
from smoothcache_core.schedule.consistency import (
    LARGEST,
    check_corrections,
    check_fill,
    check_inherited,
    check_places,
    check_rows,
)
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.fingerprint import Fingerprint, check_timesteps
from smoothcache_core.schedule.formats import FORMATS, format_named
from smoothcache_core.schedule.provenance import Prediction, Provenance, described
from smoothcache_core.schedule.solver_steps import SolverSteps
from smoothcache_core.schedule.storage import Storage, width_of
from smoothcache_core.schedule.timeline import PLAIN, Timeline, timeline
from smoothcache_core.schedule.values import Count, Integer, Name, Number, Positive, Value

Row = tuple[Annotated[Integer, Field(ge=0, le=1)], ...]


MOST_TERMS = 3
"""The most computed outputs that a fill combines: what more of them leave hardly differs, and each
is a cached tensor. Everything that bounds terms reads it here."""


def _index(key: object) -> object:
    """Read an evaluation as JSON has it, where keys are text: in one way only."""
    if isinstance(key, str) and re.fullmatch("0|[1-9][0-9]{0,8}", key):
        return int(key)
    return key


Evaluation = Annotated[Count, BeforeValidator(_index)]
"""An evaluation as a key, from 0."""


Coefficient = Annotated[Number, Field(ge=-LARGEST, le=LARGEST)]


Terms = Annotated[tuple[Coefficient, ...], Field(min_length=1, max_length=MOST_TERMS)]


FORMAT = "smoothcache-schedule"


_SHOWN = 6  # rows that a repr names: a schedule of sites has hundreds


class Fill(Value):
    """How the skipped outputs of one row are made: a linear combination of computed ones.

    Example:
        At evaluation 2, the straight line through the two outputs computed last:

        >>> line = Fill(terms={2: (2.0, -1.0)})
        >>> schedule = Schedule(evaluations=3, rows={"attn": (1, 1, 0)}, fills={"attn": line})

    Attributes:
        terms: For each skipped evaluation (from 0) the coefficients of the outputs computed last,
            the newest first, 1 to `MOST_TERMS` of them. Evaluations that are not listed reuse the
            newest.
        inputs: For skipped evaluations of the denoiser, the coefficient of the latent that it would
            have been given; 0 where not listed.
        anchors: For skipped evaluations of the denoiser, the coefficient of the latent that the
            newest computed evaluation was given; 0 where not listed. With both coefficients a fill
            sees what was added to the latent since, the noise of a stochastic solver above all.
        corrections: For skipped evaluations of guidance, the part of each coefficient in `terms`
            that corrects the guided output, as many numbers as there; 0 where not listed, None if
            they are not known. `terms` are for the strength of guidance in the fingerprint; see
            `schedule/strengths.py`.
    """

    terms: Mapping[Evaluation, Terms]
    inputs: Mapping[Evaluation, Coefficient] = {}
    anchors: Mapping[Evaluation, Coefficient] = {}
    corrections: Mapping[Evaluation, Terms] | None = None


class Changes(TypedDict, total=False):
    """What `Schedule.changed` may change; fields as in `Schedule`."""

    rows: Mapping[str, Sequence[int]]
    fills: Mapping[str, Fill]
    source: Provenance
    fingerprint: Fingerprint
    cost: Cost | None
    prediction: Prediction | None
    solver_steps: SolverSteps | None
    storage: Storage | None


def _integer(number: object) -> object:
    if type(number) is not int:
        raise ValueError(f"it is an integer, got {number!r}")
    return number


class Schedule(Value):
    """Which evaluations of which sites are computed, and how all others are filled.

    Example:
        Attention is reused at every other evaluation, all else is computed:

        >>> schedule = Schedule(evaluations=4, rows={"attn": (1, 0, 1, 0)})
        >>> path = schedule.save("schedule.json")
        >>> Schedule.load(path) == schedule
        True

    Attributes:
        format: Name of the file format, always `"smoothcache-schedule"`.
        version: Version of the file format; files of version 2 are read as well.
        evaluations: Denoiser evaluations of one run, per branch, at least 1.
        rows: For each key one entry per evaluation, 1 compute, 0 fill. A key is a site's path, a
            kind and block (`"attn-3"`) or a kind (`"attn"`); the most specific key wins, and a site
            without a key is always computed. Every row starts with 1. The key `"denoiser"` stands
            for the output of the whole model, `"guidance"` for the guidance difference; with them
            there are no rows of sites.
        fills: For keys as in `rows`, how skipped outputs are made; without one the output computed
            last is reused.
        source: How the schedule was made; `"imported"` if unknown.
        fingerprint: What it was planned for: a model that conflicts with it is refused.
        cost: MACs per site and in all, if known.
        prediction: Its predicted error, memory and time, if known.
        solver_steps: What the solver makes of the first outputs, by which a run with another
            solver, noise or guidance is told from the planned one; None if it is not known.
        storage: How outputs are kept; None for as they were computed.

    Raises:
        ScheduleError: From every constructor, if the content is invalid.
    """

    format: Literal["smoothcache-schedule"] = FORMAT
    version: Annotated[Literal[3], BeforeValidator(_integer)] = 3
    evaluations: Positive
    rows: Mapping[Name, Row]
    fills: Mapping[Name, Fill] = {}
    source: Provenance = Provenance(name="imported")
    fingerprint: Fingerprint = Fingerprint()
    cost: Cost | None = None
    prediction: Prediction | None = None
    solver_steps: SolverSteps | None = None
    storage: Storage | None = None

    if TYPE_CHECKING:  # rows may be lists, and all parts dictionaries

        def __init__(self, **data: Any) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, data: Any) -> Any:
        """Read version 2, which knew reuse only."""
        if not isinstance(data, Mapping) or data.get("version") != 2 or "fills" in data:
            return data
        _integer(data["version"])
        if "prediction" in data:
            raise ValueError("version 2 has no prediction")
        if data.get("fill", "reuse") != "reuse":
            raise ValueError(f"fill is 'reuse' in version 2, got {data['fill']!r}")
        return {k: v for k, v in data.items() if k != "fill"} | {"version": 3}

    @model_validator(mode="after")
    def _check_rows(self) -> Self:
        check_rows(self.rows, self.evaluations)
        known = self.fingerprint.evaluations
        if known is not None and known != self.evaluations:
            raise ValueError(f"evaluations is {self.evaluations}, but the fingerprint says {known}")
        check_timesteps(self.fingerprint.timesteps, self.evaluations)
        compared = (
            [step.evaluation for step in self.solver_steps.steps] if self.solver_steps else []
        )
        if compared and compared[-1] >= self.evaluations:
            raise ValueError(f"solver_steps names evaluation {compared[-1]}, past the end")
        return self

    @model_validator(mode="after")
    def _check_fills(self) -> Self:
        sites = [] if self.cost is None else [cost.site() for cost in self.cost.sites]
        for key, fill in self.fills.items():
            latents = (*fill.inputs, *fill.anchors)
            check_places(key, (*fill.terms, *latents, *(fill.corrections or ())), self.evaluations)
            if latents and key != DENOISER.kind:
                name = "inputs" if fill.inputs else "anchors"
                raise ValueError(
                    f"fill {key!r} has {name}; only {DENOISER.kind!r} may use the latent"
                )
            if fill.corrections is not None:
                check_corrections(key, fill.terms, fill.corrections)
            check_fill(key, fill.terms, latents, self.rows, sites)
        check_inherited({key: fill.terms for key, fill in self.fills.items()}, self.rows)
        return self

    def changed(self, **changes: Unpack[Changes]) -> Self:
        """Return the schedule with other values, validated like any schedule.

        Example:
            >>> slower = schedule.changed(rows={"denoiser": (1,) * 8}, fills={}, prediction=None)

        Args:
            changes: New values by the names of fields; the others stay.

        Raises:
            ScheduleError: The new values are invalid, or do not go with those that stay.
        """
        return super().changed(**changes)

    def __repr__(self) -> str:
        """Say in a line or a few what is skipped, how much of it, and what is promised."""
        skipped = {key: row.count(0) for key, row in self.rows.items()}
        shown = ", ".join(f"{key} {number}" for key, number in [*skipped.items()][:_SHOWN])
        more = f" and {len(skipped) - _SHOWN} rows more" if len(skipped) > _SHOWN else ""
        made = f"Schedule by {described(self.source)} for {self.evaluations} evaluations"
        lines = [made, f"skipped: {shown}{more}"]
        if self.has_compute:
            lines.append(f"compute: {self.compute_fraction():.3f}")
        if self.prediction is not None:
            lines.append(f"predicted: {self.prediction!r}")
        return "\n  ".join(lines)

    __str__ = __repr__

    # ------------------------------------------------------------------ what it means for a model

    def row(self, site: Site) -> Row:
        """Return the row of `site`: one entry per evaluation, 1 compute, 0 reuse.

        Args:
            site: A site of the model, or `DENOISER`, or `GUIDANCE`.

        Returns:
            (evaluations,); all ones if no key names the site.
        """
        for key in site.row_keys():
            if key in self.rows:
                return self.rows[key]
        return (1,) * self.evaluations

    def fill(self, site: Site) -> Fill:
        """Return how the skipped outputs of `site` are made.

        Args:
            site: A site of the model, or `DENOISER`, or `GUIDANCE`.

        Returns:
            Its fill; one without terms, which is plain reuse, if none is given.
        """
        found = next((self.fills[key] for key in site.row_keys() if key in self.fills), None)
        return found or Fill(terms={})

    def terms(self, site: Site) -> tuple[tuple[float, ...], ...]:
        """Return the coefficients of `site` at every evaluation.

        Args:
            site: A site of the model, or `DENOISER`, or `GUIDANCE`.

        Returns:
            (evaluations,) tuples: empty where the site is computed, else the coefficients of the
            outputs computed last, the newest first; (1.0,) is plain reuse.
        """
        given = self.fill(site).terms
        row = self.row(site)
        return tuple(() if computed else given.get(i, PLAIN) for i, computed in enumerate(row))

    def timeline(self, site: Site) -> Timeline:
        """Return what happens to `site` at every evaluation.

        Args:
            site: A site of the model, or `DENOISER`, or `GUIDANCE`.

        Raises:
            ScheduleError: A fill has more terms than outputs are computed before it.
        """
        terms = self.terms(site)
        if site != GUIDANCE:
            return timeline(terms, site.path or site.kind)
        called = self.row(DENOISER)
        present = [t if c else None for t, c in zip(terms, called, strict=True)]
        return timeline(present, site.kind)

    def unknown_keys(self, sites: Sequence[Site]) -> list[str]:
        """Return the keys that name none of `sites`, and not the whole model either.

        Args:
            sites: All sites of a model.
        """
        names = {key for site in (*sites, DENOISER, GUIDANCE) for key in site.row_keys()}
        return [key for key in (*self.rows, *self.fills) if key not in names]

    def fills_at(self, evaluation: int) -> bool:
        """Return whether any row is filled at an evaluation.

        Args:
            evaluation: Index of the evaluation in the run, from 0.
        """
        return any(not row[evaluation] for row in self.rows.values())

    @property
    def skips(self) -> bool:
        """Whether anything is reused at all."""
        return any(0 in row for row in self.rows.values())

    @property
    def whole(self) -> bool:
        """Whether its rows are of the whole denoiser, and none of sites."""
        return self.rows.keys() <= {DENOISER.kind, GUIDANCE.kind}

    def compute_fraction(self, cost: Cost | None = None) -> float:
        """Return MACs computed over MACs of the plain run, for the whole denoiser.

        Of a denoiser whose MACs could not be counted (cost 0), evaluations are counted instead, a
        skipped unconditional pass as half of one.

        Args:
            cost: Costs to count with; the schedule's own if not given.

        Raises:
            ScheduleError: No cost is known, or it is 0 and the schedule skips sites.
        """
        cost = cost or self.cost
        if cost is None:
            raise ScheduleError(
                "the compute fraction needs a cost: pass one, or plan from a calibration"
            )
        total = cost.total or self._unit()
        saved = sum(macs.macs * self.row(macs.site()).count(0) for macs in cost.sites)
        evaluated, guided = self.row(DENOISER), self.row(GUIDANCE)
        saved += total * evaluated.count(0)
        halves = sum(one and not both for one, both in zip(evaluated, guided, strict=True))
        plain = total * self.evaluations
        return (plain - saved - total * halves / 2) / plain

    @property
    def has_compute(self) -> bool:
        """Whether its compute fraction is known by its own cost."""
        return self.cost is not None and (self.cost.counted or self.whole)

    def _unit(self) -> int:
        """Return what one evaluation counts where its MACs are not known."""
        if not self.whole:
            raise ScheduleError(
                "the denoiser costs no MACs, so sites have no share in them; of whole evaluations "
                "there are fractions"
            )
        return 1

    def predicted_speedup(self, cost: Cost | None = None) -> float:
        """Return plain MACs over computed MACs: the speed-up if time were MACs alone.

        Args:
            cost: Costs to count with; the schedule's own if not given.

        Returns:
            At least 1.

        Raises:
            ScheduleError: No cost is known, it is 0 and the schedule skips sites, or nothing is
                computed.
        """
        return 1.0 / self.compute_fraction(cost)

    def predicted_bytes(self, cost: Cost | None = None) -> int:
        """Return the most bytes of cached tensors held after any evaluation, all branches counted.

        A latent that a fill of the denoiser uses counts as much as an output. What is kept by a
        `storage` counts wherever it is; what data type outputs were of is told by the cost, else by
        the fingerprint.

        Args:
            cost: Output sizes to count with; the schedule's own if not given.

        Raises:
            ScheduleError: No cost is known, or it does not know the size of the denoiser's output,
                or a fill has more terms than outputs are computed before it.
        """
        cost = cost or self.cost
        if cost is None:
            raise ScheduleError("bytes need a cost: pass one, or plan from a calibration")
        sizes = {each.site(): each.bytes * self._share(each.width) for each in cost.sites}
        copies = 2 if self.fill(DENOISER).anchors else 1
        share = self._share(cost.output_width)
        whole = {DENOISER: copies * cost.output_bytes, GUIDANCE: cost.output_bytes // 2}
        sizes |= {site: size * share for site, size in whole.items()}
        if not cost.output_bytes and (0 in self.row(DENOISER) or 0 in self.row(GUIDANCE)):
            raise ScheduleError("this cost does not know the size of the denoiser's output")
        totals = [0.0] * self.evaluations
        for site, size in sizes.items():
            for evaluation, number in enumerate(self.timeline(site).live_counts()):
                totals[evaluation] += size * number
        return round(max(totals))

    def _share(self, width: float | None) -> float:
        """Return what is stored over what was computed, of outputs of so many bytes an entry."""
        if self.storage is None:
            return 1.0
        return self.storage.share(width or width_of(self.fingerprint.dtype))

    # ------------------------------------------------------------------ files

    def save(self, path: str | Path) -> Path:
        """Write the schedule as JSON, in one step.

        Args:
            path: Where to; folders that are not there are made.

        Returns:
            The path.
        """
        return write_atomically(path, self.to_json().encode())

    def to_json(self) -> str:
        """Return the schedule as JSON with one row per line."""
        return json_text(json.loads(self.model_dump_json(exclude_none=True)), _on_one_line) + "\n"

    @classmethod
    def load(cls, path: str | Path, *, format: str | None = None) -> Self:
        """Read a schedule file: this library's JSON, or one of another format, see `FORMATS`.

        Args:
            path: A JSON file.
            format: Name of the format, such as `"sglang"`; recognised if not given. Lists of 0 and
                1 do not say which is which: they are `"computed-list"` or `"cached-list"`.

        Raises:
            ScheduleError: The file is missing, is not JSON, or is not a valid schedule.
        """
        document = read_document(path, "schedule", ScheduleError)
        if format is None and not isinstance(document, dict):
            raise ScheduleError(f"{str(path)!r} holds a {type(document).__name__}, not a schedule")
        return cls.imported(document, format=format)

    @classmethod
    def imported(cls, document: Any, *, format: str | None = None) -> Self:
        """Return the schedule that a document says, in this library's format or any of `FORMATS`.

        Example:
            >>> Schedule.imported([0, 1, 1], format="cached-list").rows["denoiser"]
            (1, 0, 0)

        Args:
            document: What a JSON file holds.
            format: Name of the format; recognised if not given.

        Raises:
            ScheduleError: There is no such format, none recognises it, or it is not valid.
        """
        if format is not None:
            other = format_named(format)
            if not other.takes(document):
                raise ScheduleError(f"this is not {other.title}, but a {type(document).__name__}")
            return cls.of(other.read(document))
        if isinstance(document, Mapping) and "format" in document:
            return cls.of(document)
        for other in FORMATS:
            if other.recognises(document):
                return cls.of(other.read(document))
        raise ScheduleError(f"a {type(document).__name__} is no schedule in any known format")

    def exported(self, name: str) -> Any:
        """Return the document of this schedule in one of `FORMATS`.

        Where the format cannot say how skipped outputs are made, and this schedule does, a
        `SmoothCacheWarning` says that they are lost.

        Example:
            >>> Schedule(evaluations=2, rows={"attn": (1, 0)}).exported("smoothcache-v1")
            {'attn': [1, 0]}

        Args:
            name: Name of the format, such as `"smoothcache-v1"` or `"cache-dit"`.

        Raises:
            ScheduleError: There is no such format, or it cannot say what the schedule says.
        """
        other = format_named(name)
        document = other.write(dict(self))
        if self.fills and not other.keeps_fills:
            message = (
                f"{other.title} says which evaluations are computed, and not how others are made: "
                "the coefficients of this schedule are lost, and its predicted error with them"
            )
            warnings.warn(message, SmoothCacheWarning, stacklevel=2)
        return document


def _on_one_line(path: tuple[str, ...], value: Any) -> bool:
    """Whether a part of the file stands on one line: every row and every fill does."""
    del value
    return len(path) == 2 and path[0] in ("rows", "fills")
