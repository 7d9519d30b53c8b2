"""Before anything is evaluated: the calibration, and what every policy is at every budget."""

import json
from dataclasses import asdict, dataclass

from smoothcache_core import Calibration, Schedule, calibrate
from smoothcache_core.cli.ranks import Ranks
from smoothcache_core.documents import read_document
from smoothcache_core.errors import EvaluationError, ScheduleError, SmoothCacheError
from smoothcache_core.evaluation.tally import Policy
from smoothcache_core.files import write_atomically
from smoothcache_core.schedule import Provenance
from tqdm import tqdm

from tools.evaluate.folders import Workplace
from tools.evaluate.policies import (
    POLICIES,
    Made,
    Material,
    Steps,
    compute_of,
    least_compute,
    of_steps,
)
from tools.evaluate.subject import MAX_LAG, Subject

FAR = 0.1
"""How far above a budget the nearest compute of a policy may be to be shown in its place."""

NEAREST = "nearest possible"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of a policy at a budget, as it is kept in a file.

    Attributes:
        policy: Name of the policy.
        budget: Compute that was asked for, in (0, 1).
        compute: Compute of what was made, in (0, 1]; None if nothing was.
        steps: Steps of the plain model, if that is what was made; else it is a schedule.
        reason: Why nothing was made, or in what way it is not what was asked for.
        failed: Whether it is an error that nothing was made, rather than a finding.
    """

    policy: str
    budget: float
    compute: float | None = None
    steps: int | None = None
    reason: str = ""
    failed: bool = False

    @property
    def name(self) -> str:
        """Name of the policy at this budget, as in reports."""
        return name_of(self.policy, self.budget)

    @property
    def made(self) -> bool:
        """Whether there is something to run."""
        return self.compute is not None

    @property
    def ours(self) -> bool:
        """Whether it is a method of this library's own."""
        return POLICIES[self.policy].ours


def name_of(policy: str, budget: float) -> str:
    """Return the name of a policy at a budget, as in reports."""
    return f"{policy} {budget:g}"


# ---------------------------------------------------------------------------- calibrating


def calibrated(subject: Subject) -> Calibration:
    """Calibrate, or read what was calibrated; several processes share the seeds.

    Raises:
        SmoothCacheError: The model cannot be calibrated.
    """
    return calibrate(
        subject.calibrator,
        seeds=subject.size.calibration_seeds,
        max_lag=MAX_LAG,
        checkpoint=subject.place.calibration,
        sharded=True,
    )


# ---------------------------------------------------------------------------- planning


def prepare(subject: Subject, calibration: Calibration, ranks: Ranks) -> list[Entry]:
    """Make every policy at every budget, or read what was made; processes share them.

    Args:
        subject: What is evaluated.
        calibration: What was measured of it.
        ranks: The processes.

    Returns:
        One entry for each, in the order of the policies and budgets.

    Raises:
        CommandError: Another process ended.
    """
    settings, place = subject.settings, subject.place
    material = Material(
        calibration=calibration,
        sampler=subject.calibrator,
        seeds=subject.size.calibration_seeds,
    )
    todo = [(p, b) for p in settings.chosen_policies for b in settings.chosen_budgets]
    own = [each for each in ranks.share(todo) if not place.plan(name_of(*each)).exists()]
    bar = tqdm(own, desc=f"{subject.kind.name}: planning", unit="plan", disable=not ranks.first)
    for policy, budget in bar:
        bar.set_postfix_str(name_of(policy, budget))
        _keep(place, *entry_of(material, policy, budget))
    ranks.wait()
    return [read_entry(place, name_of(*each)) for each in todo]


def entry_of(material: Material, policy: str, budget: float) -> tuple[Entry, Made | None]:
    """Return what becomes of a policy at a budget, and what was made, if anything was."""
    try:
        return _entry_of(material, policy, budget)
    except SmoothCacheError as error:
        reason = f"{type(error).__name__}: {error}"
        return Entry(policy=policy, budget=budget, reason=reason, failed=True), None


def _entry_of(material: Material, policy: str, budget: float) -> tuple[Entry, Made | None]:
    kind, reason = POLICIES[policy], ""
    try:
        made = kind.make(material, budget)
    except ScheduleError as error:
        least = least_compute(kind.reach or kind.make, material)
        if least is None or least <= budget:
            return Entry(policy=policy, budget=budget, reason=str(error)), None
        if least > budget + FAR:
            reason = f"not possible: at least {least:.2f}"
            return Entry(policy=policy, budget=budget, reason=reason), None
        made, reason = kind.make(material, least), NEAREST
    compute = compute_of(made, material)
    steps = made.steps if isinstance(made, Steps) else None
    return Entry(policy=policy, budget=budget, compute=compute, steps=steps, reason=reason), made


def policy_of(subject: Subject, entry: Entry) -> Policy:
    """Return what `smoothcache_core.evaluation` runs for an entry that was made."""
    if entry.steps is None:
        return Policy(name=entry.name, schedule=Schedule.load(subject.place.schedule(entry.name)))
    fewer = of_steps(subject.sampler, Steps(entry.steps))
    return Policy(
        name=entry.name,
        sampler=fewer,
        source=Provenance(name="fewer-steps", settings={"steps": entry.steps}),
        compute=entry.compute,
        evaluations=fewer.evaluations or entry.steps,
    )


# ---------------------------------------------------------------------------- files


def _keep(place: Workplace, entry: Entry, made: Made | None) -> None:
    """Write an entry, after its schedule: it says that all of it is there."""
    if isinstance(made, Schedule):
        made.save(place.schedule(entry.name))
    write_atomically(place.plan(entry.name), (json.dumps(asdict(entry), indent=2) + "\n").encode())


def read_entry(place: Workplace, name: str) -> Entry:
    """Read an entry.

    Raises:
        EvaluationError: It is not there, or damaged.
    """
    file = place.plan(name)
    content = read_document(file, "plan", EvaluationError)
    try:
        return Entry(**content)
    except TypeError as error:
        raise EvaluationError(
            f"{str(file)!r} is not what an evaluation writes; remove it"
        ) from error
