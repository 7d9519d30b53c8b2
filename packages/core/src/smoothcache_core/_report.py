"""Reports: what policies cost and what they did to the samples, measured side by side."""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, ValidationError
from torch import Tensor

from smoothcache_core._calibration import Calibration
from smoothcache_core._error_plots import kept_promises, trade_off
from smoothcache_core._errors import EvaluationError
from smoothcache_core._files import write_atomically
from smoothcache_core._fingerprint import Fingerprint
from smoothcache_core._plan import Point
from smoothcache_core._plots import error_curves, png, skip_map
from smoothcache_core._report_text import cell, described_row, settings, table
from smoothcache_core._schedule import Prediction, Schedule, Source
from smoothcache_core._sites import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = "smoothcache-report"


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


Number = Annotated[float, PlainSerializer(_json_number, when_used="json-unless-none")]
"""A float that JSON can hold: infinite values and NaN are written as strings."""


class MetricResult(BaseModel):
    """One metric of one policy.

    Attributes:
        mean: Mean over the samples.
        spread: Standard deviation over the samples, 0 for one sample or equal ones.
        samples: The value of every sample, in the order of the seeds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: Number
    spread: Number
    samples: tuple[Number, ...]


class ReportRow(BaseModel):
    """One policy. The keys are those of a benchmark record; what is not known is None.

    Attributes:
        policy: Name of the policy; `"plain"` computes everything, without a cache.
        ours: Whether it is a method of this library's own, not a published one.
        solver: Name of the solver.
        evaluations: Denoiser evaluations of one run, per branch.
        compute: MACs over the MACs of the plain run, for the whole denoiser.
        seconds: Median time of one call of the sampler.
        seconds_each: The time of every seed's call.
        speedup: Median over the seeds of plain seconds over this policy's.
        of_limit: `speedup * compute`: 1 if time were MACs alone.
        rel_l2: Mean relative L2 distance from the plain samples.
        rel_l2_spread: Its standard deviation over samples.
        rel_l2_low: Lower end of the 95 % bootstrap interval of `rel_l2`; None for one sample.
        rel_l2_high: Upper end.
        psnr_db: Mean peak signal-to-noise ratio against the plain samples, in decibels.
        frechet: Frechet distance of features from a reference set.
        accuracy: Fraction of samples that a classifier recognises.
        metrics: Every metric, those named above included, by name.
        summaries: Every summary of all samples, those named above included, by name.
        bytes_peak: Most bytes of cached outputs held after any evaluation.
        computed: Site calls computed, over all timed runs.
        reused: Site calls answered from the cache, over all timed runs.
        recomputed: Planned reuses that had to be computed.
        source: How the schedule was made.
        prediction: What the schedule promised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str
    ours: bool
    solver: str | None = None
    evaluations: int | None = None
    compute: float | None = None
    seconds: float
    seconds_each: tuple[float, ...]
    speedup: float
    of_limit: float | None = None
    rel_l2: Number
    rel_l2_spread: Number
    rel_l2_low: float | None = None
    rel_l2_high: float | None = None
    psnr_db: Number | None = None
    frechet: Number | None = None
    accuracy: Number | None = None
    metrics: Mapping[str, MetricResult] = {}
    summaries: Mapping[str, Number] = {}
    bytes_peak: int = 0
    computed: int | None = None
    reused: int = 0
    recomputed: int = 0
    source: Source | None = None
    prediction: Prediction | None = None


class Report(BaseModel):
    """Policies compared on the same seeds. Made by `evaluate`; equal if all that is saved is equal.

    Attributes:
        format: Always `"smoothcache-report"`.
        version: Version of the file format.
        rows: One per policy, the plain run first.
        seeds: Evaluation seeds.
        calibration_seeds: Seeds that the schedules were calibrated with.
        calibration_samples: Samples that the schedules were calibrated with, if that was told.
        warmup: Untimed runs of every policy before the timed ones.
        num_samples: Samples of every policy, over all seeds.
        sample_shape: Shape of one sample.
        sample_dtype: Data type of the samples.
        plain_repeat_rel_l2: Mean relative L2 distance between two plain runs of the first seed:
            what of `rel_l2` is not the cache's doing. None without a warm-up.
        fingerprint: What was run.
        device: What it ran on.
        versions: Versions of the packages that matter.
        date: When it ended.
        samples: The samples that `evaluate` was asked to keep, (k, ...) by policy; not saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    format: Literal["smoothcache-report"] = FORMAT
    version: Literal[1] = 1
    rows: tuple[ReportRow, ...]
    seeds: tuple[int, ...]
    calibration_seeds: tuple[int, ...] = ()
    calibration_samples: int | None = None
    warmup: int
    num_samples: int
    sample_shape: tuple[int, ...]
    sample_dtype: str
    plain_repeat_rel_l2: Number | None = None
    fingerprint: Fingerprint
    device: str
    versions: Mapping[str, str]
    date: datetime
    samples: Annotated[Mapping[str, Tensor], Field(exclude=True, repr=False)] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self.to_json() == other.to_json()

    __hash__ = None

    def row(self, policy: str) -> ReportRow:
        """Return the row of a policy.

        Raises:
            EvaluationError: There is no such policy.
        """
        rows = {row.policy: row for row in self.rows}
        if policy not in rows:
            raise EvaluationError(f"the report has no policy {policy!r}; it has {list(rows)}")
        return rows[policy]

    # ------------------------------------------------------------------ files

    def to_json(self) -> str:
        """Return the report as strict JSON; infinite values and NaN are strings."""
        return _dump(json.loads(self.model_dump_json())) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON, in one step."""
        return write_atomically(path, self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a report file.

        Raises:
            EvaluationError: The file is missing, damaged, or not a report of this version.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise EvaluationError(f"cannot read report {str(path)!r}: {error.strerror}") from error
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise EvaluationError(
                f"{str(path)!r} is not a report: {where}: {problem['msg']}"
            ) from error

    def to_markdown(self, *, pictures: Mapping[str, str] | None = None) -> str:
        """Return a table of the rows, with what was measured and how.

        Args:
            pictures: Files to show below, by caption.
        """
        environment = Environment(
            loader=PackageLoader("smoothcache_core"),
            undefined=StrictUndefined,
            keep_trailing_newline=True,
        )
        return environment.get_template("report.md").render(
            report=self,
            model=self.fingerprint.model_class or "denoiser",
            table=table(self.rows),
            settings=settings(self),
            policies=[(cell(row.policy), described_row(row)) for row in self.rows],
            pictures=list((pictures or {}).items()),
        )

    def write(
        self,
        folder: str | Path,
        *,
        schedules: Mapping[str, Schedule] | None = None,
        calibration: Calibration | None = None,
        pictures: "Mapping[str, Figure | bytes] | None" = None,
        notes: str = "",
        points: Sequence[Point] = (),
        chosen: Point | None = None,
        peers: "Sequence[ReportRow]" = (),
    ) -> tuple[Path, ...]:
        """Write `report.json`, pictures, and `report.md`, which shows them, each in one step.

        Args:
            folder: Where to; made if it is not there.
            schedules: Policies to draw a map of computed and reused outputs of, by name.
            calibration: Errors to draw; also tells the maps all sites.
            pictures: Further files by name, for example `"samples.png"`: a figure, or the bytes of
                a file.
            notes: Markdown to end `report.md` with.
            points: Plans to draw beside what was measured, see `Planner.front`.
            chosen: One of them, to be marked.
            peers: Other methods' rows to draw there too, see `load_peers`.

        Returns:
            The files written, `report.md` last.

        Raises:
            EvaluationError: The name of a picture is not a plain file name, or is taken.
        """
        overview = partial(trade_off, points=points, chosen=chosen, peers=peers)
        drawn = _drawn(self, overview, schedules or {}, calibration)
        files = {name: content for name, content, _ in drawn}
        _check_names(pictures or {}, taken=(*files, "report.json", "report.md"))
        shown = {caption: name for name, _, caption in drawn}
        shown |= {Path(name).stem: name for name in pictures or {}}
        target = Path(folder)
        written = [self.save(target / "report.json")]
        for name, content in {**files, **(pictures or {})}.items():
            data = content if isinstance(content, bytes) else png(content)
            written.append(write_atomically(target / name, data))
        text = self.to_markdown(pictures=shown) + notes
        return (*written, write_atomically(target / "report.md", text.encode()))


# ---------------------------------------------------------------------------- pictures


def _drawn(
    report: Report,
    overview: "Callable[[Sequence[ReportRow]], Figure]",
    schedules: Mapping[str, Schedule],
    calibration: Calibration | None,
) -> "list[tuple[str, Figure, str]]":
    """Return name, figure and caption of every figure of a report."""
    drawn = []
    if any(row.compute is not None for row in report.rows):
        drawn.append(("compute-and-error.png", overview(report.rows), "Compute and error"))
    if any(row.prediction is not None for row in report.rows):
        figure = kept_promises(report.rows)
        drawn.append(("predicted-and-measured.png", figure, "Predicted and measured errors"))
    if calibration is not None:
        drawn.append(("error-curves.png", error_curves(calibration), "Calibrated errors"))
    names = _file_names(schedules)
    for policy, schedule in schedules.items():
        figure = skip_map(schedule, _sites(schedule, calibration), name=policy)
        drawn.append((names[policy], figure, f"Computed and reused: {policy}"))
    return drawn


def _sites(schedule: Schedule, calibration: Calibration | None) -> Sequence[Site]:
    """Return all sites if anything knows them, else one for every row of the schedule."""
    if calibration is not None:
        return calibration.sites
    if schedule.cost is not None:
        return [cost.site() for cost in schedule.cost.sites]
    return [Site(path=key, kind=key, block=0) for key in schedule.rows]


def _file_names(policies: Iterable[str]) -> dict[str, str]:
    """Return a file name for the map of every policy, all different on any file system."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for policy in policies:
        stem = name = "skip-map-" + re.sub(r"[^a-z0-9.]+", "-", policy.lower()).strip("-.")
        number = 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        names[policy] = f"{name}.png"
    return names


def _check_names(pictures: Iterable[str], taken: Sequence[str]) -> None:
    for name in pictures:
        if not name or Path(name).name != name or name in taken:
            raise EvaluationError(
                f"a picture needs a file name of its own, such as 'samples.png', got {name!r}"
            )


# ---------------------------------------------------------------------------- JSON


def _dump(value: Any, indent: str = "") -> str:
    """Dump JSON indented, but with every list of plain values on one line."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        parts = [f"{json.dumps(key)}: {_dump(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return "[\n" + ",\n".join(inner + _dump(item, inner) for item in value) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)
