"""What an evaluation found of one modality, and how: calibrate, plan, measure, judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.console import Console
from smoothcache_core import Calibration, Report
from smoothcache_core.cli.evaluating import Evaluation
from smoothcache_core.cli.modality import Judging
from smoothcache_core.cli.ranks import Ranks
from smoothcache_core.errors import CommandError, OutputError, SmoothCacheError
from smoothcache_core.evaluation.runs import device_of, judge_of, ran
from smoothcache_core.evaluation.tally import Policy
from smoothcache_core.pipelines.adapting import AUTO
from smoothcache_core.reports.rows import PLAIN
from smoothcache_core.reports.text import counted
from tqdm import tqdm

from tools.evaluate.modalities import Kind, MissingPackageError
from tools.evaluate.preparing import Entry, calibrated, policy_of, prepare
from tools.evaluate.settings import Settings
from tools.evaluate.subject import Subject, subject_of
from tools.evaluate.units import Unit, measure, runs_of, units_of


@dataclass(frozen=True, kw_only=True)
class Found:
    """What was found of a modality.

    Attributes:
        kind: The modality.
        model: The model that was asked for; empty for the shipped one.
        entries: What became of every policy at every budget.
        subject: What was evaluated; None if nothing could be.
        calibration: What was measured of it.
        evaluation: What was measured and judged.
        missing: Why there is no evaluation.
        remarks: What readers must know besides.
    """

    kind: Kind
    model: str = ""
    entries: Sequence[Entry] = ()
    subject: Subject | None = None
    calibration: Calibration | None = None
    evaluation: Evaluation | None = None
    missing: str = ""
    remarks: Sequence[str] = field(default_factory=tuple)

    @property
    def report(self) -> Report | None:
        """The report, if there is one."""
        return None if self.evaluation is None else self.evaluation.report

    @property
    def least_budget(self) -> float:
        """The least budget that any policy could be made for; of nothing, all of the compute."""
        return min((entry.budget for entry in self.entries if entry.made), default=1.0)

    @property
    def failed(self) -> bool:
        """Whether something that was asked for is missing, or ended in an error."""
        return bool(self.missing) or any(entry.failed for entry in self.entries)


def found_of(kind: Kind, settings: Settings, ranks: Ranks, console: Console) -> Found | None:
    """Evaluate a modality; several processes share the work.

    What cannot be done is said in what is returned, and nothing else is lost by it.

    Args:
        kind: The modality.
        settings: What was asked for.
        ranks: The processes.
        console: Where to tell what is done.

    Returns:
        What was found; None in all processes but the first.

    Raises:
        CommandError: The folder holds what was measured with other settings, or a process ended.
    """
    model = settings.model_of(kind) or ""
    try:
        subject = subject_of(kind, settings)
    except MissingPackageError as error:
        return Found(kind=kind, model=model, missing=str(error)) if ranks.first else None
    problem = _problem_of(subject)
    if not ranks.agree(not problem):
        missing = problem or "the model could not be loaded by another process"
        return Found(kind=kind, model=model, missing=missing) if ranks.first else None
    if ranks.first:
        subject.place.enter(force=settings.force)
    ranks.wait()
    console.print(f"[bold]{kind.name}[/]: {_about(subject)}")
    try:
        calibration = calibrated(subject)  # where one process fails, all do
        entries = prepare(subject, calibration, ranks)
        policies = [Policy(name=PLAIN)]
        policies += [policy_of(subject, entry) for entry in entries if entry.made]
        units = units_of(subject, policies)
        measure(subject, units, ranks)
        return _judged(subject, calibration, entries, units) if ranks.first else None
    except (CommandError, OutputError):
        raise
    except SmoothCacheError as error:
        return Found(kind=kind, model=model, missing=_told(error)) if ranks.first else None


def _problem_of(subject: Subject) -> str:
    """Load the model, and return why that was impossible; empty if it was not."""
    try:
        subject.sampler  # noqa: B018 loads it
    except SmoothCacheError as error:
        return _told(error)
    return ""


def _told(error: SmoothCacheError) -> str:
    return f"{type(error).__name__}: {error}"


def _about(subject: Subject) -> str:
    size = subject.size
    calibrating = counted(size.calibration_samples * len(size.calibration_seeds), "sample")
    return (
        f"{subject.source.model}, {subject.sampler.steps} steps; calibrated with {calibrating}, "
        f"judged on {counted(size.samples * len(size.seeds), 'other')}"
    )


def _judged(
    subject: Subject, calibration: Calibration, entries: Sequence[Entry], units: Sequence[Unit]
) -> Found:
    """Return what was found, from the runs that are in files."""
    sampler, seeds = subject.sampler, subject.size.seeds
    runs, failed = runs_of(subject.place, units)
    entries = [_with_failure(entry, failed) for entry in entries]
    policies = {unit.policy.name: unit.policy for unit in units}
    left = [policy for name, policy in policies.items() if name not in failed]
    judging = subject.modality.judging(subject.source, sampler, seeds)
    judge = judge_of(
        sampler, left, metrics=judging.metrics, summaries=judging.summaries, keep=judging.shown
    )
    for seed in tqdm(seeds, desc=f"{subject.kind.name}: judging", unit="seed"):
        judge.take(runs[seed])
    report = judge.report(
        ran(sampler, left),
        tuple(seeds),
        0,  # the warm-up has fewer steps
        frozenset(each.name for each in entries if each.made and each.ours),
        None,
        device_of(sampler.model),
        calibration.samples,
    )
    schedules = {each.name: each.schedule for each in left if each.schedule is not None}
    return Found(
        kind=subject.kind,
        model=subject.settings.model_of(subject.kind) or "",
        entries=entries,
        subject=subject,
        calibration=calibration,
        evaluation=Evaluation(report=report, judging=judging, schedules=schedules),
        remarks=_remarks(subject, calibration),
    )


def _with_failure(entry: Entry, failed: Mapping[str, str]) -> Entry:
    if entry.name not in failed:
        return entry
    return replace(entry, compute=None, reason=failed[entry.name], failed=True)


def _remarks(subject: Subject, calibration: Calibration) -> list[str]:
    found = [*([calibration.remark] if calibration.remark else []), *subject.kind.lacking()]
    if not calibration.sites:
        found.append(
            "No parts of this model are known that could be skipped, so only whole evaluations are."
        )
    elif calibration.fingerprint.adapter_data and subject.source.adapter == AUTO:
        found.append(
            f"No adapter is known for {calibration.fingerprint.model_class}, so what can be "
            "skipped was found by its structure."
        )
    return found


def at_budget(evaluation: Evaluation, budget_names: Sequence[str]) -> Evaluation:
    """Return an evaluation of a few policies beside plain.

    Args:
        evaluation: What was measured.
        budget_names: Names of the policies to keep.
    """
    report, kept = evaluation.report, {PLAIN, *budget_names}
    few = report.model_copy(
        update={
            "rows": tuple(row for row in report.rows if row.policy in kept),
            "samples": {name: each for name, each in report.samples.items() if name in kept},
        }
    )
    schedules = {name: each for name, each in evaluation.schedules.items() if name in kept}
    return Evaluation(report=few, judging=evaluation.judging, schedules=schedules)


def pictured(judging: Judging, names: Sequence[str]) -> Judging:
    """Return a judging that shows a few policies beside plain: pictures of all would be a wall.

    Args:
        judging: What becomes of samples.
        names: Names of the policies to show.
    """

    def few(report: Report) -> Report:
        whole = Evaluation(report=report, judging=judging, schedules={})
        return at_budget(whole, names).report

    return replace(
        judging,
        pictures=lambda report, title: judging.pictures(few(report), title),
        comparisons=lambda report: judging.comparisons(few(report)),
    )
