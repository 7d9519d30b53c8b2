"""The modalities that can be evaluated, and how large the runs of their shipped models are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from smoothcache_core.cli.modality import Modality
from smoothcache_core.errors import SmoothCacheError


class MissingPackageError(SmoothCacheError):
    """The package of a modality is not installed."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is sampled.

    Attributes:
        samples: Samples of every evaluation seed, one batch.
        seeds: Evaluation seeds.
        calibration_samples: Samples of every calibration seed, one batch.
        calibration_seeds: Calibration seeds; several can be shared out among processes.
    """

    samples: int
    seeds: Sequence[int]
    calibration_samples: int
    calibration_seeds: Sequence[int] = (0, 1)


ALONE = Size(samples=1, seeds=(1000, 1001, 1002, 1003), calibration_samples=1)
"""Of a model that takes the place of a shipped one: a sample at a time, as commands do."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A modality.

    Attributes:
        name: Its name: `"image"`.
        package: The distribution that it comes with.
        value: Where its `Modality` is, `"module:name"`.
        quick: How much is sampled of the shipped model by `--quick`.
        full: How much without.
        own: Fields of the source for the shipped model, where they are not the source's defaults.
        extras: What is to be said where a package that is no must is not installed, by its module.
    """

    name: str
    package: str
    value: str
    quick: Size
    full: Size
    own: Mapping[str, Any] = field(default_factory=dict[str, Any])
    extras: Mapping[str, str] = field(default_factory=dict[str, str])

    def lacking(self) -> list[str]:
        """Return what is to be said of packages that are not installed."""
        return [said for module, said in self.extras.items() if find_spec(module) is None]

    def load(self) -> Modality:
        """Return what the command line of the modality is about.

        Raises:
            MissingPackageError: Its package is not installed.
        """
        module, _, name = self.value.partition(":")
        if find_spec(module.partition(".")[0]) is None:
            raise MissingPackageError(
                f"{self.package} is not installed; `pip install {self.package}` adds this modality"
            )
        return getattr(import_module(module), name)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "image": Kind(
            name="image",
            package="smoothcache-image",
            value="smoothcache_image.cli:IMAGES",
            quick=Size(samples=10, seeds=(1000, 1001), calibration_samples=5),
            full=Size(samples=20, seeds=(1000, 2000, 3000), calibration_samples=10),
        ),
        "video": Kind(
            name="video",
            package="smoothcache-video",
            value="smoothcache_video.cli:CLIPS",
            quick=Size(samples=4, seeds=(1000, 1001), calibration_samples=2),
            full=Size(samples=10, seeds=(1000, 2000, 3000), calibration_samples=5),
            extras={
                "av": "PyAV is not installed, so clips are GIF files; "
                "`pip install 'smoothcache-video[mp4]'` makes them MP4 files."
            },
        ),
        "audio": Kind(
            name="audio",
            package="smoothcache-audio",
            value="smoothcache_audio.cli:SOUNDS",
            quick=Size(samples=5, seeds=(1000, 1001), calibration_samples=3),
            full=Size(samples=10, seeds=(1000, 2000, 3000), calibration_samples=5),
            # without noise of the solver's own, which hides what caches do, and with fewer steps
            own={"solver": "dpmpp-2m", "steps": 50},
        ),
    }
)
