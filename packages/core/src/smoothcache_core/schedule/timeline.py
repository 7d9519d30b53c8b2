"""The timeline of one site in a run: what happens at every evaluation, and what is kept when.

Pure arithmetic on evaluations, for the cache that follows it and for predicting its memory.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from types import MappingProxyType

from smoothcache_core.errors import ScheduleError

COMPUTE, STORE, REUSE, FILL, SCALE = 0, 1, 2, 3, 4
"""What a site does in one evaluation: call the module; call it and keep the output; give the output
kept last as it is; give a linear combination of the outputs kept last; give the output kept last
scaled and shifted channel by channel."""


FILLED = (REUSE, FILL, SCALE)
"""The modes in which the module is not called."""


IDLE = -1
"""The site has no part in this evaluation."""


PLAIN = (1.0,)
"""The terms of plain reuse."""


@dataclass(frozen=True)
class Timeline:
    """What happens to one site.

    Attributes:
        modes: Mode at every evaluation.
        sources: The computed evaluations that each filled evaluation is made of, the newest first;
            empty where nothing is filled.
        weights: Coefficients of these outputs, one for each.
        last_use: For every evaluation the last one that uses its output, itself if none does.
        earlier: By computed evaluation, the earlier ones whose outputs its own is corrected by, the
            newest first; evaluations that are not corrected are not listed.
        corrections: Coefficients of each of them, after that of the evaluation's own output.
    """

    modes: tuple[int, ...]
    sources: tuple[tuple[int, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    last_use: tuple[int, ...]
    earlier: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    corrections: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    @property
    def terms(self) -> int:
        """The most terms of any fill, 0 if there is none but plain reuse."""
        modes = zip(self.modes, self.weights, strict=True)
        return max((len(weights) for mode, weights in modes if mode == FILL), default=0)

    def keeping_all(self) -> "Timeline":
        """Return it with every computed output kept, if only until its evaluation is over."""
        return replace(self, modes=tuple(STORE if m == COMPUTE else m for m in self.modes))

    def scaling(self) -> "Timeline":
        """Return it with every reused output scaled and shifted channel by channel."""
        return replace(self, modes=tuple(SCALE if m == REUSE else m for m in self.modes))

    def live_counts(self) -> tuple[int, ...]:
        """Return how many outputs are kept after every evaluation, by their live ranges."""
        changes = [0] * (len(self.modes) + 1)
        for evaluation, last in enumerate(self.last_use):
            changes[evaluation] += 1
            changes[last] -= 1
        return tuple(accumulate(changes[:-1]))

    def live_shares(self, passes: Sequence[int]) -> tuple[float, ...]:
        """Return how many outputs of both conditioning passes what is kept amounts to.

        An output of both passes counts as a half from the first evaluation of one pass on that is
        filled from it, if no later one has both.

        Args:
            passes: 1 where an evaluation has the unconditional pass too, (evaluations,).

        Returns:
            After every evaluation; `live_counts` where all evaluations have both passes.
        """
        if all(passes):
            return self.live_counts()
        shares = [0.0] * len(self.modes)
        for source, last in enumerate(self.last_use):
            users = [e for e, sources in enumerate(self.sources) if source in sources]
            both = max((e for e in users if passes[e]), default=-1)
            halved = min((e for e in users if not passes[e] and e > both), default=last)
            halved = halved if passes[source] else source
            for evaluation in range(source, last):
                shares[evaluation] += 1.0 if evaluation < halved else 0.5
        return tuple(shares)

    def usable(self, evaluation: int, kept: Collection[int]) -> tuple[int, ...]:
        """Return what to fill `evaluation` from, the newest first; empty if it must be computed.

        Plain reuse takes whatever was computed last. A combination, or a scale, is good for the
        outputs that it was calibrated on, and for no others.

        Args:
            evaluation: An evaluation to be filled.
            kept: Evaluations whose outputs are kept.
        """
        if self.modes[evaluation] == REUSE:
            return (max(kept),) if kept else ()
        sources = self.sources[evaluation]
        return sources if set(sources) <= set(kept) else ()

    def needed(self, evaluation: int, kept: Collection[int]) -> list[int]:
        """Return those of `kept` that are used after `evaluation`.

        Args:
            evaluation: The evaluation that is over.
            kept: Evaluations whose outputs are there. One that was computed out of turn serves the
                reuses that follow at once.
        """
        following = next((m for m in self.modes[evaluation + 1 :] if m != IDLE), COMPUTE)
        newest = max(kept, default=-1)
        return [
            source
            for source in kept
            if self.last_use[source] > evaluation
            or (self.sources[source] and source == newest and following == REUSE)
        ]


def timeline(
    terms: Sequence[Sequence[float] | None],
    name: str = "",
    corrections: Mapping[int, Sequence[float]] = MappingProxyType({}),
) -> Timeline:
    """Return the timeline of a site.

    Args:
        terms: For every evaluation the coefficients of the outputs computed last, the newest first;
            empty where the site is computed, None where it has no part.
        name: Name of the site, for the error.
        corrections: By computed evaluation, the coefficients of its own output and of those
            computed before it, the newest first.

    Raises:
        ScheduleError: A fill or a correction has more terms than outputs are computed before it.
    """
    done: list[int] = []
    sources: list[tuple[int, ...]] = []
    for evaluation, coefficients in enumerate(terms):
        if coefficients and len(coefficients) > len(done):
            raise ScheduleError(
                f"the fill of {name!r} has {len(coefficients)} terms at evaluation {evaluation}, "
                f"but only {len(done)} outputs are computed before it"
            )
        sources.append(tuple(done[: -len(coefficients) - 1 : -1]) if coefficients else ())
        if coefficients is not None and not coefficients:
            done.append(evaluation)
    earlier = {i: _before(i, len(each) - 1, done, name) for i, each in corrections.items()}
    last_use = list(range(len(terms)))
    for evaluation, used in enumerate(sources):
        for source in (*used, *earlier.get(evaluation, ())):
            last_use[source] = evaluation
    return Timeline(
        modes=tuple(_mode(c, e, last_use[e]) for e, c in enumerate(terms)),
        sources=tuple(sources),
        weights=tuple(tuple(coefficients or ()) for coefficients in terms),
        last_use=tuple(last_use),
        earlier=earlier,
        corrections={i: tuple(each) for i, each in corrections.items()},
    )


def _before(evaluation: int, count: int, done: Sequence[int], name: str) -> tuple[int, ...]:
    """Return the `count` evaluations computed last before one that is computed too."""
    place = bisect_left(done, evaluation)
    if count > place:
        raise ScheduleError(
            f"the correction of {name!r} has {count + 1} terms at evaluation {evaluation}, but "
            f"only {place} outputs are computed before it"
        )
    return tuple(reversed(done[place - count : place]))


def _mode(coefficients: Sequence[float] | None, evaluation: int, last_use: int) -> int:
    if coefficients is None:
        return IDLE
    if coefficients:
        return REUSE if tuple(coefficients) == PLAIN else FILL
    return STORE if last_use > evaluation else COMPUTE
