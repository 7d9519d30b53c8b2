"""What a schedule says of a model: its fields, validated, and what follows from them."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import BeforeValidator, Field, model_validator

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site
from smoothcache_core.documents import json_text
from smoothcache_core.schedule.channels import Channels
from smoothcache_core.schedule.consistency import (
    check_corrected,
    check_corrections,
    check_fill,
    check_inherited,
    check_passes,
    check_places,
    check_rows,
)
from smoothcache_core.schedule.cost import Cost
from smoothcache_core.schedule.counting import computed_fraction, most_bytes
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.fingerprint import Fingerprint, check_timesteps
from smoothcache_core.schedule.provenance import (
    Aim,
    Prediction,
    Provenance,
    aim_of,
    described,
)
from smoothcache_core.schedule.solver_steps import SolverSteps
from smoothcache_core.schedule.storage import Storage
from smoothcache_core.schedule.timeline import PLAIN, Timeline, timeline
from smoothcache_core.schedule.values import Integer, Name, Positive, Value

Row = tuple[Annotated[Integer, Field(ge=0, le=1)], ...]


FORMAT = "smoothcache-schedule"


_CHANNELS = ("channels", "sites")


_SHOWN = 6  # rows that a repr names: a schedule of sites has hundreds


class Changes(TypedDict, total=False):
    """What `Schedule.changed` may change; fields as in `Schedule`."""

    rows: Mapping[str, Sequence[int]]
    fills: Mapping[str, Fill]
    corrected: Fill | None
    source: Provenance
    fingerprint: Fingerprint
    cost: Cost | None
    prediction: Prediction | None
    solver_steps: SolverSteps | None
    storage: Storage | None
    channels: Channels | None


def _integer(number: object) -> object:
    if type(number) is not int:
        raise ValueError(f"it is an integer, got {number!r}")
    return number


class Content(Value):
    """The fields of a `Schedule`, which says what they are, and what they mean for a model."""

    format: Literal["smoothcache-schedule"] = FORMAT
    version: Annotated[Literal[3], BeforeValidator(_integer)] = 3
    evaluations: Positive
    rows: Mapping[Name, Row]
    fills: Mapping[Name, Fill] = {}
    corrected: Fill | None = None
    source: Provenance = Provenance(name="imported")
    fingerprint: Fingerprint = Fingerprint()
    cost: Cost | None = None
    prediction: Prediction | None = None
    solver_steps: SolverSteps | None = None
    storage: Storage | None = None
    channels: Channels | None = None

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
            places = (*fill.terms, *latents, *(fill.corrections or ()))
            check_places(f"fill {key!r}", places, self.evaluations)
            if latents and key != DENOISER.kind:
                name = "inputs" if fill.inputs else "anchors"
                raise ValueError(
                    f"fill {key!r} has {name}; only {DENOISER.kind!r} may use the latent"
                )
            if fill.passes and key in (DENOISER.kind, GUIDANCE.kind):
                raise ValueError(f"fill {key!r} has passes; only sites give something in each")
            if fill.corrections is not None:
                check_corrections(key, fill.terms, fill.corrections)
            check_fill(key, fill.terms, latents, self.rows, sites)
        terms = {key: fill.terms for key, fill in self.fills.items()}
        check_inherited(terms, self.rows)
        check_passes(terms, self.rows)
        return self

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if self.channels is not None:
            self.channels.check_rows(self.rows.get)
            both = [path for path in self.channels.sites if path in self.fills]
            if both:
                raise ValueError(f"{both[0]!r} has both a fill and channels; it can have one")
        return self

    @model_validator(mode="after")
    def _check_corrected(self) -> Self:
        if self.corrected is not None:
            given = self.corrected
            if given.anchors or given.corrections is not None or given.passes:
                raise ValueError("corrected has terms and inputs only")
            check_corrected(self.corrected.terms, (*self.corrected.inputs,), self.row(DENOISER))
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
        if self.corrected is not None:
            lines.append(f"corrected: {len(self.corrected.terms)} computed evaluations")
        if self.channels is not None:
            lines.append(f"scaled and shifted: outputs of {len(self.channels.sites)} sites")
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
        if self.channels is not None and site.path in self.channels.sites:
            return timeline(terms, site.path).scaling()
        if site != GUIDANCE:
            given = self.corrected if site == DENOISER else None
            return timeline(terms, site.path or site.kind, given.terms if given else {})
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

    def changes_at(self, evaluation: int) -> bool:
        """Return whether the solver gets something else than a computed output.

        Args:
            evaluation: Index of the evaluation in the run, from 0.
        """
        corrected = self.corrected is not None and evaluation in self.corrected.terms
        return corrected or self.fills_at(evaluation)

    @property
    def toward(self) -> Aim:
        """What its samples shall come near to: the plain run, or the exact solution."""
        return aim_of(self.source, self.prediction)

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
        return computed_fraction(self, cost or self.cost)

    @property
    def has_compute(self) -> bool:
        """Whether its compute fraction is known by its own cost."""
        return self.cost is not None and (self.cost.counted or self.whole)

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
        return most_bytes(self, cost or self.cost)

    def to_json(self) -> str:
        """Return the schedule as JSON with one row per line."""
        return json_text(json.loads(self.model_dump_json(exclude_none=True)), _on_one_line) + "\n"


def _on_one_line(path: tuple[str, ...], value: Any) -> bool:
    """Whether a part of the file stands on one line: every row, fill and kind of coefficient."""
    del value
    return path == _CHANNELS or (len(path) == 2 and path[0] in ("rows", "fills", "corrected"))
