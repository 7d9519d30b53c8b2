"""Fills of a given row by a rule that looks at places alone, such as Taylor's."""

from collections.abc import Sequence

import numpy as np

from smoothcache_core.fills import FillRule, rounded
from smoothcache_core.schedule.schedule import Fill


def extrapolated(row: Sequence[int], rule: FillRule) -> Fill:
    """Return how a rule fills what a row skips, from the outputs computed last.

    Example:
        >>> from smoothcache_core.fills import taylor
        >>> extrapolated((1, 1, 0, 0), taylor(1)).terms
        {2: (2.0, -1.0), 3: (3.0, -2.0)}

    Args:
        row: (evaluations,), 1 compute, 0 fill; the first is 1.
        rule: Makes coefficients from the places of the outputs, as `taylor` does; those that need
            calibrated inner products have nothing to go by here.
    """
    terms: dict[int, tuple[float, ...]] = {}
    computed: list[int] = []
    for evaluation, one in enumerate(row):
        if one:
            computed.append(evaluation)
            continue
        known = computed[: -rule.terms - 1 : -1]
        grams = np.zeros((len(known) + 1, len(known) + 1))
        places = np.array([evaluation, *known], dtype=float)
        coefficients = rounded(rule.coefficients(grams, places).tolist())
        if coefficients != (1.0,):  # plain reuse needs no terms
            terms[evaluation] = coefficients
    return Fill(terms=terms)
