"""Tables across modalities."""

from collections.abc import Iterable, Sequence

from smoothcache_core.reports import ReportRow
from smoothcache_core.reports.page import Table

from tools.bench.ranking import Cell, Standing, standings
from tools.evaluate.policies import POLICIES
from tools.evaluate.preparing import NEAREST, Entry, name_of
from tools.evaluate.sections import Found


def row_of(found: Found, entry: Entry) -> ReportRow | None:
    """Return what was measured of an entry, if it was."""
    if found.report is None or not entry.made:
        return None
    return found.report.row(entry.name)


def cells_of(founds: Iterable[Found]) -> list[Cell]:
    """Return all errors that were measured."""
    return [
        Cell(
            modality=found.kind.name,
            policy=entry.policy,
            budget=entry.budget,
            compute=entry.compute,
            error=row.rel_l2,
            ours=POLICIES[entry.policy].ours,
        )
        for found in founds
        for entry in found.entries
        if (row := row_of(found, entry)) is not None and entry.compute is not None
    ]


def all_tables(founds: Sequence[Found], budgets: Sequence[float]) -> list[Table]:
    """Return the tables of a report across modalities, the errors first."""
    cells = cells_of(founds)
    tables = [errors_table(founds, budgets)]
    if cells:
        tables += [standings_table(cells, budgets), promises_table(founds, budgets)]
    return tables + ([missing_table(founds)] if _missing(founds) else [])


# ---------------------------------------------------------------------------- errors


def errors_table(founds: Sequence[Found], budgets: Sequence[float]) -> Table:
    """Return the errors of all policies by modality and budget, the best policies first."""
    policies = _in_order(founds)
    places = [(found, budget) for found in founds for budget in budgets]
    return Table(
        caption="Error over compute",
        columns=["policy", *(f"{found.kind.name} {budget:g}" for found, budget in places)],
        rows=[
            [_marked(policy), *(_error(found, policy, budget) for found, budget in places)]
            for policy in policies
        ],
        notes=[
            "relative L2 distance of the final latents from the plain run's of the same noise, "
            "mean over samples whose seeds calibrated nothing; columns are budgets of compute: "
            "MACs over the plain run's",
            "(at 0.31): the compute, where it is not the budget but the nearest possible; at least "
            "0.50: not possible, and the least that is",
            *(f"{_marked(name)}: {POLICIES[name].title}" for name in policies),
        ],
    )


def _in_order(founds: Sequence[Found]) -> list[str]:
    """Return the policies, those that err least first, those without any error last."""
    asked = dict.fromkeys(entry.policy for found in founds for entry in found.entries)
    ranked = [each.policy for each in standings(cells_of(founds))]
    return [*ranked, *(policy for policy in asked if policy not in ranked)]


def _marked(policy: str) -> str:
    return f"{policy} (ours)" if POLICIES[policy].ours else policy


def _entry(found: Found, policy: str, budget: float) -> Entry | None:
    known = {entry.name: entry for entry in found.entries}
    return known.get(name_of(policy, budget))


def _error(found: Found, policy: str, budget: float) -> str:
    entry = _entry(found, policy, budget)
    if found.missing or entry is None:
        return "missing" if found.missing else "-"
    row = row_of(found, entry)
    if row is None:
        return "failed" if entry.failed else entry.reason.removeprefix("not possible: ")
    aside = f" (at {entry.compute:.2f})" if entry.reason == NEAREST else ""
    return f"{row.rel_l2:.2g}{aside}"


# ---------------------------------------------------------------------------- ranks


def standings_table(cells: Sequence[Cell], budgets: Sequence[float]) -> Table:
    """Return the policies across modalities, the best first."""
    by_budget = {b: {each.policy: each for each in standings(cells, b)} for b in budgets}
    return Table(
        caption="Policies across modalities",
        columns=[
            "policy",
            "mean rank",
            "times the least error",
            *(f"at {budget:g}" for budget in budgets),
            "measured",
            "not possible",
        ],
        rows=[
            [
                _marked(each.policy),
                f"{each.rank:.1f}",
                f"{each.ratio:.2f}",
                *(_ratio(by_budget[budget].get(each.policy)) for budget in budgets),
                str(each.cells),
                str(each.missing),
            ]
            for each in standings(cells)
        ],
        notes=[
            "mean rank: of the error, 1 for the least, over modalities and budgets",
            "times the least error: geometric mean, over modalities and budgets, of the error over "
            "the least error of any policy there; then the same at each budget",
            "sorted by what is not possible within a budget, then by these",
        ],
    )


def _ratio(standing: Standing | None) -> str:
    return "-" if standing is None else f"{standing.ratio:.2f}"


# ---------------------------------------------------------------------------- promises


def promises_table(founds: Sequence[Found], budgets: Sequence[float]) -> Table:
    """Return predicted errors beside those that came."""
    names = dict.fromkeys(entry.policy for found in founds for entry in found.entries)
    rows = [
        [_marked(policy), f"{budget:g}", *(_promise(found, policy, budget) for found in founds)]
        for policy in names
        for budget in budgets
    ]
    return Table(
        caption="Predicted and measured errors",
        columns=["policy", "compute", *(found.kind.name for found in founds)],
        rows=[row for row in rows if any(cell != "-" for cell in row[2:])],
        notes=[
            "predicted -> measured, and in brackets measured over predicted; predictions "
            "are from calibration samples, of fitted schedules measured on them",
        ],
    )


def _promise(found: Found, policy: str, budget: float) -> str:
    entry = _entry(found, policy, budget)
    row = None if entry is None else row_of(found, entry)
    if row is None or row.prediction is None or not row.prediction.error:
        return "-"
    ratio = row.rel_l2 / row.prediction.error
    return f"{row.prediction.error:.2g} -> {row.rel_l2:.2g} ({ratio:.1f}x)"


# ---------------------------------------------------------------------------- what is missing


def missing_table(founds: Sequence[Found]) -> Table:
    """Return what was asked for and is not there, and why."""
    return Table(
        caption="What is not here, and why",
        columns=["modality", "policy", "compute", "why"],
        rows=_missing(founds),
        words=True,
    )


def _missing(founds: Sequence[Found]) -> list[list[str]]:
    rows = [[found.kind.name, "all", "all", found.missing] for found in founds if found.missing]
    reasons: dict[tuple[str, str, str], list[float]] = {}
    for found in founds:
        for entry in found.entries:
            if not entry.made:
                key = found.kind.name, entry.policy, entry.reason
                reasons.setdefault(key, []).append(entry.budget)
    return rows + [
        [modality, policy, ", ".join(f"{each:g}" for each in budgets), reason]
        for (modality, policy, reason), budgets in reasons.items()
    ]
