"""What the parts of a schedule must be together: rows, and the fills that go with them.

Every function raises ValueError, which is told as a problem of the schedule.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Site

LARGEST = 65504.0
"""The largest coefficient of a fill, either way: the largest number of float16, in which it makes
infinity of an output of 2; in bfloat16 it makes 256 times an output of what rounding left. Those of
calibrated fills are about 1; a parabola through three neighbours has 40,000 after 200 others."""


def check_rows(rows: Mapping[str, Sequence[int]], evaluations: int) -> None:
    """Refuse rows that are no rows of so many evaluations, or do not go together."""
    if not rows:
        raise ValueError("a schedule needs at least one row")
    for key, row in rows.items():
        if len(row) != evaluations:
            raise ValueError(
                f"row {key!r} has {len(row)} entries, but the schedule has {evaluations} "
                "evaluations"
            )
        if row[0] != 1:
            raise ValueError(
                f"row {key!r} reuses at the first evaluation; there is nothing to reuse"
            )
    sites = set(rows) - {DENOISER.kind, GUIDANCE.kind}
    if DENOISER.kind in rows and sites:
        raise ValueError(
            f"row {DENOISER.kind!r} is of the whole model and cannot be combined with rows of "
            f"sites, here {sorted(sites)[:3]}"
        )


def check_places(key: str, places: Sequence[int], evaluations: int) -> None:
    """Refuse a fill, or corrections, that names evaluations past the end."""
    past = [evaluation for evaluation in places if evaluation >= evaluations]
    if past:
        raise ValueError(f"{key} names evaluation {past[0]}, past the end")


def check_fill(
    key: str,
    terms: Mapping[int, Sequence[float]],
    latents: Sequence[int],
    rows: Mapping[str, Sequence[int]],
    sites: Sequence[Site],
) -> None:
    """Refuse a fill that goes with no row, of what is computed, or made of more than there is.

    Args:
        key: Key of the fill.
        terms: Its coefficients by evaluation.
        latents: Evaluations at which it uses a latent.
        rows: All rows of the schedule.
        sites: Sites of the model, as far as the schedule knows them.
    """
    found = list(_rows_of(key, rows, sites))
    if not found:
        raise ValueError(f"fill {key!r} has no row, so nothing is filled by it")
    called = rows.get(DENOISER.kind) if key == GUIDANCE.kind else None
    problems = [
        _of_computed(key, (*terms, *latents), row) or _too_many(key, terms, row, called or row)
        for row in found
    ]
    if all(problems):
        raise ValueError(problems[0])


def check_corrections(
    key: str,
    terms: Mapping[int, Sequence[float]],
    corrections: Mapping[int, Sequence[float]],
) -> None:
    """Refuse parts of coefficients that are not of guidance, or not one for each coefficient.

    Args:
        key: Key of the fill.
        terms: Its coefficients by evaluation.
        corrections: The part of each that corrects the guided output.
    """
    if corrections and key != GUIDANCE.kind:
        raise ValueError(f"fill {key!r} has corrections; only {GUIDANCE.kind!r} may have them")
    for evaluation, parts in corrections.items():
        known = terms.get(evaluation, ())
        if len(parts) != len(known):
            raise ValueError(
                f"fill {key!r} has {len(parts)} corrections at evaluation {evaluation}, but "
                f"{len(known)} terms"
            )


def check_corrected(
    terms: Mapping[int, Sequence[float]], inputs: Sequence[int], row: Sequence[int]
) -> None:
    """Refuse corrections of what is not computed, or made of more than there is.

    Args:
        terms: Coefficients of a computed output and of those before it, by evaluation.
        inputs: Evaluations at which the latent takes part.
        row: The row of the denoiser, 1 where it is computed.
    """
    check_places("corrected", (*terms, *inputs), len(row))
    alone = sorted(set(inputs) - set(terms))
    if alone:
        raise ValueError(f"corrected has inputs at evaluation {alone[0]}, but no terms")
    before = list(accumulate(row, initial=0))
    for evaluation, coefficients in terms.items():
        if not row[evaluation]:
            raise ValueError(f"corrected names evaluation {evaluation}, which is skipped")
        if len(coefficients) > before[evaluation] + 1:
            raise ValueError(
                f"corrected has {len(coefficients)} terms at evaluation {evaluation}, its own and "
                f"those before it, but only {before[evaluation]} outputs are computed before it"
            )


def check_inherited(
    fills: Mapping[str, Mapping[int, Sequence[float]]], rows: Mapping[str, Sequence[int]]
) -> None:
    """Refuse the fill of a kind that has too many terms for the row of one of its blocks.

    Args:
        fills: Coefficients by evaluation of every fill.
        rows: All rows of the schedule.
    """
    for key, row in rows.items():
        kind = _kind_of(key)
        if (
            key not in fills
            and kind in fills
            and (problem := _too_many(kind, fills[kind], row, row))
        ):
            raise ValueError(f"{problem} in row {key!r}")


def check_passes(
    fills: Mapping[str, Mapping[int, Sequence[float]]], rows: Mapping[str, Sequence[int]]
) -> None:
    """Refuse to fill an evaluation of both passes from one whose unconditional pass is skipped.

    Args:
        fills: Coefficients by evaluation of every fill.
        rows: All rows of the schedule.
    """
    both = rows.get(GUIDANCE.kind)
    if both is None or DENOISER.kind in rows:
        return
    for key, row in rows.items():
        terms = fills.get(key) or fills.get(_kind_of(key)) or {}
        for evaluation, computed in enumerate(row):
            if computed or not both[evaluation]:  # as in the row of guidance itself
                continue
            used = len(terms.get(evaluation, ())) or 1
            newest = [each for each in range(evaluation) if row[each]][-used:]
            if alone := [each for each in newest if not both[each]]:
                raise ValueError(
                    f"row {key!r} fills evaluation {evaluation}, which has both passes of "
                    f"guidance, from evaluation {alone[0]}, which has the conditional one only"
                )


def _rows_of(
    key: str, rows: Mapping[str, Sequence[int]], sites: Sequence[Site]
) -> Iterator[Sequence[int]]:
    """Yield the rows that a fill may go with: more than one where the site's kind is not known."""
    site = next((site for site in sites if site.path == key), None)
    if key in rows:
        yield rows[key]
    elif site is not None:
        yield from [rows[name] for name in site.row_keys() if name in rows][:1]
    elif _kind_of(key) in rows:
        yield rows[_kind_of(key)]
    elif "." in key:
        yield from (row for name, row in rows.items() if "." not in name)


def _kind_of(key: str) -> str:
    """Return the kind of a key of a kind and block, `"attn"` of `"attn-3"`; else nothing."""
    kind, _, block = key.rpartition("-")
    return kind if block.isdecimal() else ""


def _of_computed(key: str, places: Sequence[int], row: Sequence[int]) -> str:
    """Return which evaluation a fill names though it is computed; empty if there is none."""
    computed = [evaluation for evaluation in places if row[evaluation]]
    if not computed:
        return ""
    return f"fill {key!r} names evaluation {computed[0]}, which is computed"


def _too_many(
    key: str,
    terms: Mapping[int, Sequence[float]],
    row: Sequence[int],
    called: Sequence[int],
) -> str:
    """Return where a fill has more terms than there are outputs before it; empty if nowhere.

    Args:
        key: Key of the fill.
        terms: Its coefficients by evaluation.
        row: Its row, 1 where it is computed.
        called: Whether there is anything to be filled at all, by evaluation or as its row.
    """
    computed = row if called is row else list(map(min, row, called))
    before = list(accumulate(computed, initial=0))
    for evaluation, coefficients in terms.items():
        asked = not row[evaluation] and (called is row or called[evaluation])
        if asked and len(coefficients) > before[evaluation]:
            return (
                f"fill {key!r} has {len(coefficients)} terms at evaluation {evaluation}, but only "
                f"{before[evaluation]} outputs are computed before it"
            )
    return ""
