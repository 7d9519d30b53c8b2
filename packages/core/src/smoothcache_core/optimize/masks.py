"""Which evaluations are computed, and what a fill is made of."""

from dataclasses import dataclass

from smoothcache_core.schedule.fill import MOST_TERMS


@dataclass(frozen=True, kw_only=True)
class Mask:
    """What a cached run computes, as booleans for every evaluation.

    Attributes:
        denoiser: Whether the denoiser is called.
        guidance: Where it is, whether the unconditional pass is evaluated too.
    """

    denoiser: tuple[bool, ...]
    guidance: tuple[bool, ...]

    @property
    def compute(self) -> float:
        """Evaluations computed; one without its unconditional pass counts a half."""
        pairs = zip(self.denoiser, self.guidance, strict=True)
        return sum((1.0 if guided else 0.5) for computed, guided in pairs if computed)


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What a fill of the denoiser combines.

    Attributes:
        terms: The most computed outputs, 1 to `MOST_TERMS`.
        use_input: Whether it also uses the latent.
        use_anchor: Whether it also uses the latent of the evaluation computed last.
    """

    terms: int = MOST_TERMS
    use_input: bool = True
    use_anchor: bool = False

    @property
    def coefficients(self) -> int:
        """The most coefficients of one fill."""
        return self.terms + self.use_input + self.use_anchor
