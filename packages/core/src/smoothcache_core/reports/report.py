"""Reports: what policies cost and what they did to the samples, measured side by side."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from smoothcache_core.documents import json_text, read_document
from smoothcache_core.errors import EvaluationError
from smoothcache_core.files import write_atomically
from smoothcache_core.reports.rows import Number, ReportRow
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.values import Count, Seeds, Text, first_problem

FORMAT = "smoothcache-report"


class Report(BaseModel):
    """Policies compared on the same seeds. Made by `evaluate`; equal if all that is saved is equal.

    Example:
        >>> from smoothcache_core.reports import to_markdown
        >>> report = evaluate(sampler, {"half": schedule}, seeds=[100, 101], progress=False)
        >>> report.row("half").rel_l2 < 1.0
        True
        >>> table = to_markdown(report)
        >>> Report.load(report.save("report.json")) == report
        True

    Attributes:
        format: Name of the file format, always `"smoothcache-report"`.
        version: Version of the file format.
        rows: One per policy, the plain run first.
        seeds: Seeds of the runs, in the order in which they were made.
        calibration_seeds: Seeds that the schedules were calibrated with, ascending; none of them is
            in `seeds`.
        calibration_samples: Samples that the schedules were calibrated with, if that was told.
        warmup: Untimed runs of every policy before the timed ones.
        num_samples: Samples of every policy, over all seeds.
        sample_shape: Shape of one sample, without the batch dimension.
        sample_dtype: Data type of the samples, such as `"torch.float32"`.
        compute_unit: What compute is a fraction of: `"MACs"`, or `"evaluations"` where those of the
            denoiser cannot be counted.
        plain_repeat_rel_l2: Mean relative L2 distance between two plain runs of the first seed:
            what of `rel_l2` is not the cache's doing. None without a warm-up.
        exact_doubt: By how much the exact solutions may be off, mean relative L2, where the
            distances to them were measured: what of them is less is not known.
        fingerprint: What was run: model, adapter, solver and evaluations.
        device: What it ran on: name of the accelerator, or the processor and its threads.
        versions: Versions of the packages that matter, by name.
        date: When it ended, with its time zone.
        samples: The samples that `evaluate` was asked to keep, tensors (k, ...) by policy; not
            saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["smoothcache-report"] = FORMAT
    version: Literal[1] = 1
    rows: tuple[ReportRow, ...]
    seeds: Seeds
    calibration_seeds: Seeds = ()
    calibration_samples: Count | None = None
    warmup: Count
    num_samples: Count
    sample_shape: tuple[Count, ...]
    sample_dtype: Text
    compute_unit: Literal["MACs", "evaluations"] = "MACs"
    plain_repeat_rel_l2: Number | None = None
    exact_doubt: Number | None = None
    fingerprint: Fingerprint
    device: Text
    versions: Mapping[Text, Text]
    date: datetime
    samples: Annotated[Mapping[str, Any], Field(exclude=True, repr=False)] = {}

    @model_serializer(mode="wrap")
    def _without_the_usual(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        if self.compute_unit == "MACs":
            del content["compute_unit"]  # as in files of before
        if self.exact_doubt is None:
            del content["exact_doubt"]  # likewise
        return content

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Report) and self.to_json() == other.to_json()

    __hash__ = None

    def __repr__(self) -> str:
        """Say what was compared, a line for each policy."""
        lines = [
            f"Report of {self.fingerprint.model_class or 'a model'} on {self.device}: "
            f"{self.num_samples} samples of {len(self.seeds)} seeds"
        ]
        for row in self.rows:
            compute = "" if row.compute is None else f"compute {row.compute:.3f}, "
            speed = f"{compute}{row.speedup:.2f}x as fast, relative L2 {row.rel_l2:.3g}"
            away = row.exact_rel_l2
            exact = "" if away is None else f", {away:.3g} to the exact solution"
            lines.append(f"{row.policy}: {speed}{exact}")
        return "\n  ".join(lines)

    __str__ = __repr__

    def row(self, policy: str) -> ReportRow:
        """Return the row of a policy.

        Args:
            policy: Name of a policy; `"plain"` is the run that computes everything.

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
        return json_text(json.loads(self.model_dump_json()), _on_one_line) + "\n"

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON, in one step.

        Args:
            path: Where to; folders that are not there are made.

        Returns:
            The path.
        """
        return write_atomically(path, self.to_json().encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a report file.

        Args:
            path: A JSON file that `save` wrote.

        Raises:
            EvaluationError: The file is missing, damaged, or not a report of this version.
        """
        try:
            return cls.model_validate(read_document(path, "report", EvaluationError))
        except ValidationError as error:
            raise EvaluationError(f"{str(path)!r}: {first_problem(error, 'report')}") from error


def _on_one_line(path: tuple[str, ...], value: Any) -> bool:
    """Whether a part of the file stands on one line: every list of plain values does."""
    del path
    return isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
