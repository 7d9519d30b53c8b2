"""Fills: how the skipped outputs of one row are made of computed ones."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from smoothcache_core.schedule.consistency import LARGEST
from smoothcache_core.schedule.values import Count, Number, Value

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
        passes: For sites, what of an output of both conditioning passes fills an evaluation whose
            unconditional pass is skipped: `"mean"` for the mean of the passes, as T-GATE has it;
            None for what the conditional pass gave.
    """

    terms: Mapping[Evaluation, Terms]
    inputs: Mapping[Evaluation, Coefficient] = {}
    anchors: Mapping[Evaluation, Coefficient] = {}
    corrections: Mapping[Evaluation, Terms] | None = None
    passes: Literal["mean"] | None = None
