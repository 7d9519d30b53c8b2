"""How much of its MAC saving does caching turn into time, on Stable Audio Open's transformer?

As stable-audio-tools builds it, ten seconds, DPM-Solver++(3M) SDE, guidance in one batch of two,
under every policy in lockstep, see `timing.py`. The weights are random: speed does not depend on
them, and nothing is said on quality. The peers are in requirements-bench.lock (`make bench-env`);
those not installed are reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from smoothcache_audio import STABLE_AUDIO_TOOLS

from tools.bench.models import audio_policies
from tools.bench.models.audio_policies import ALL_SITES, LEAST
from tools.bench.models.stable_audio import SOLVER, Size, sampling, transformer
from tools.bench.policies import CONTROL, PLAIN, Policy
from tools.bench.records import Record
from tools.bench.studies.speed import SEED, Settings, Subject, measure_speed

PACKAGES = (
    "torch",
    "stable-audio-tools",
    "k-diffusion",
    "diffusers",
    "smoothcache-core",
    "dit-smoothcache",
    "cache-dit",
)

NOTES = (
    "The transformer is stable-audio-tools' own DiffusionTransformer, built from the configuration "
    "of Stable Audio Open 1.0; each evaluation guides in one batch of two.",
    "0.81 and 0.65 are the compute fractions of the paper's table 3 (arXiv 2411.10510), which "
    "reports 1.23 and 1.52 times the speed. Computed evaluations are evenly spaced here, the same "
    "for all kinds: where they are makes no difference to time.",
    "TransformerBlock is registered with diffusers' caches, and CacheMixin added to the class of "
    "a copy of the transformer inside: they know no model of stable-audio-tools. The hooks are "
    "diffusers' own. cache-dit is told the list of blocks (pattern 3), and to "
    "skip where the mask says whatever it sees: the noise of every step makes its inputs differ by "
    "more than its largest threshold.",
)

EQUALS = {
    f"dit-smoothcache ({ALL_SITES} at {LEAST:g})": f"smoothcache ({ALL_SITES} at {LEAST:g})",
    CONTROL.key: PLAIN.key,
}


def audio_subject(
    size: Size | None = None, *, sounds: int = 1, policies: Sequence[Policy] = ()
) -> Subject:
    """Return Stable Audio Open's transformer.

    Args:
        size: Its size, that of Stable Audio Open if not given.
        sounds: Sounds of one run.
        policies: What is compared, the plain model first; those of the benchmark if not given.
    """
    size = size or Size()
    batch = "one sound" if sounds == 1 else f"{sounds} sounds"
    return Subject(
        modality="audio",
        model=size.name,
        full_size=size.is_full,
        solver=SOLVER,
        batch=f"{2 * sounds} ({batch} of {size.latents} latents, both conditioning passes)",
        adapter=STABLE_AUDIO_TOOLS,
        build=lambda device, dtype: transformer(size, device=device, dtype=dtype, seed=SEED),
        sampling=partial(sampling, size=size, seed=SEED, sounds=sounds),
        policies=policies or audio_policies.policies(),
        packages=PACKAGES,
        notes=NOTES,
        equals=EQUALS,
    )


@dataclass(frozen=True, kw_only=True)
class AudioSettings(Settings):
    """Settings on Stable Audio Open's transformer.

    Attributes:
        layers: Blocks; 24 is full size.
        heads: Heads of 64 channels; 24 is full size.
        seconds: Length of the sound.
        evaluations: Evaluations of one run, at least 4.
    """

    layers: int = 24
    heads: int = 24
    seconds: float = 10.0
    evaluations: int = 100

    @property
    def size(self) -> Size:
        """Size of the transformer and of a sound."""
        return Size(layers=self.layers, heads=self.heads, seconds=self.seconds)


def measure(settings: AudioSettings) -> Record:
    """Time all policies side by side."""
    return measure_speed(audio_subject(settings.size), settings)
