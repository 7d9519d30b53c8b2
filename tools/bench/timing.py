"""Timing policies side by side in one process.

Two runs one after the other tell little on a machine that is shared or that changes its clock:
the second may be slower by more than what is to be measured. Here the policies go in lockstep,
evaluation by evaluation (or run by run) in a shuffled order, and every time is divided by the time
that the plain model took for the same piece, moments before or after. What slows the machine for
longer than one piece cancels; what lasts shorter is an outlier that the median drops.
"""

import random
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

Piece = Literal["evaluation", "run"]
Seconds = NDArray[np.float64]
"""Measured times, (rounds, pieces): a piece is one evaluation, or a whole run."""


class Run(Protocol):
    """A sampler under one policy, stopped between evaluations."""

    def start(self) -> None:
        """Begin a new run from the noise."""
        ...

    def evaluate(self, evaluation: int) -> None:
        """Call the denoiser."""
        ...

    def advance(self, evaluation: int) -> None:
        """Make the solver's step."""
        ...


def race(
    runs: Mapping[str, Run],
    *,
    evaluations: int,
    rounds: int,
    piece: Piece,
    device: torch.device,
    seed: int,
    progress: bool = True,
) -> dict[str, Seconds]:
    """Time all runs in lockstep.

    Args:
        runs: One run per policy.
        evaluations: Evaluations of one run.
        rounds: How often every run is made, at least 1.
        piece: What is timed at once. On a GPU time whole runs: waiting for it after every
            evaluation would take away the overlap of host and device that a sampler has.
        device: Waited for before and after a piece.
        seed: Seed of the shuffled order.
        progress: Show a progress bar.

    Returns:
        For each name the seconds, (rounds, pieces).
    """
    pieces = evaluations if piece == "evaluation" else 1
    seconds = {name: np.zeros((rounds, pieces)) for name in runs}
    shuffled, names = random.Random(seed), list(runs)
    total = rounds * pieces * len(runs)
    with tqdm(total=total, desc="timing", unit=piece, disable=not progress) as bar:
        for index in range(rounds):
            for run in runs.values():
                run.start()
            for number in range(pieces):
                steps = range(evaluations) if piece == "run" else (number,)
                for name in shuffled.sample(names, len(names)):
                    seconds[name][index, number] = _timed(runs[name], steps, device)
                    bar.update()
    return seconds


def _timed(run: Run, evaluations: Sequence[int], device: torch.device) -> float:
    """Return the seconds of evaluations, the solver's steps among them."""
    begin = _clock(device)
    for evaluation in evaluations:
        run.evaluate(evaluation)
        run.advance(evaluation)
    return _clock(device) - begin


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


# ---------------------------------------------------------------------------- what the times say


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How long a policy takes.

    Attributes:
        seconds: Seconds of one run: `relative` times the plain model's median.
        relative: Time over the plain model's time: for each kind of piece the median of the
            paired ratios, weighted by how many pieces are of that kind.
        low: Lower end of the 95 % bootstrap interval of `relative`.
        high: Upper end.
        seconds_sum: Mean over the rounds of the plain sum of all times, outliers included.
        ratios: The median paired ratio of each kind.
    """

    seconds: float
    relative: float
    low: float
    high: float
    seconds_sum: float
    ratios: Mapping[Hashable, float]


def judge(
    seconds: Seconds, plain: Seconds, kinds: Sequence[Hashable], *, resamples: int = 1000
) -> Verdict:
    """Compare a policy's times with the plain model's.

    Args:
        seconds: The policy's times, (rounds, pieces).
        plain: The plain model's, (rounds, pieces).
        kinds: For each piece what it computes; pieces of one kind should take the same time.
        resamples: Bootstrap samples.

    Raises:
        ValueError: The shapes differ.
    """
    if seconds.shape != plain.shape or seconds.shape[1:] != (len(kinds),):
        raise ValueError(
            f"times of shapes {seconds.shape} and {plain.shape} and {len(kinds)} kinds do not fit"
        )
    paired = seconds / plain
    groups = {
        kind: paired[:, [i for i, other in enumerate(kinds) if other == kind]].ravel()
        for kind in dict.fromkeys(kinds)
    }
    relative = _weighted_median(list(groups.values()))
    low, high = np.percentile(_bootstrap(list(groups.values()), resamples), [2.5, 97.5])
    return Verdict(
        seconds=relative * float(np.median(plain)) * plain.shape[1],
        relative=relative,
        low=float(low),
        high=float(high),
        seconds_sum=float(seconds.sum(axis=1).mean()),
        ratios={kind: float(np.median(values)) for kind, values in groups.items()},
    )


def _weighted_median(groups: Sequence[Seconds]) -> float:
    sizes = [len(values) for values in groups]
    return float(np.average([np.median(values) for values in groups], weights=sizes))


def _bootstrap(groups: Sequence[Seconds], resamples: int) -> list[float]:
    generator = np.random.default_rng(0)
    return [
        _weighted_median([generator.choice(values, len(values)) for values in groups])
        for _ in range(resamples)
    ]
