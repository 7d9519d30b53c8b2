"""What is sampled of a modality: its model, its sampler, and what decides on their numbers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

import torch
from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.calls.fingerprints import model_fingerprint
from smoothcache_core.cli.modality import Modality
from smoothcache_core.cli.source import Source
from smoothcache_core.evaluation.runs import device_of
from smoothcache_core.sampling import ConditionedSampler

from tools.evaluate.folders import Workplace
from tools.evaluate.modalities import Kind, Size
from tools.evaluate.settings import Settings

MAX_LAG = 12  # evaluations: what `calibrate` and the demos measure by default
_FORMAT = 1  # of what is kept; a higher number makes older folders be measured anew


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A modality's model, as it is evaluated.

    Attributes:
        kind: The modality.
        modality: What its command line is about: how to load, to judge and to write.
        source: What is sampled.
        size: How much of it.
        settings: What was asked for.
    """

    kind: Kind
    modality: Modality
    source: Source
    size: Size
    settings: Settings

    @cached_property
    def sampler(self) -> ConditionedSampler:
        """The sampler of the runs that evaluate."""
        loaded = self.source.sampler(steps=self.source.steps or self.source.STEPS)
        loaded.show_progress(False)
        return loaded

    @property
    def calibrator(self) -> ConditionedSampler:
        """The sampler of the runs that calibrate."""
        return replace(self.sampler, samples=self.size.calibration_samples)

    @cached_property
    def place(self) -> Workplace:
        """Where its calibration, plans and runs are; loads the model, whose weights decide."""
        return Workplace(folder=self.settings.output / self.kind.name, known=self._known())

    def _known(self) -> Mapping[str, Any]:
        sampler = self.sampler
        model = model_fingerprint(denoiser(sampler.model), sampler.adapter.name)
        known = {
            "format": _FORMAT,
            "model": self.source.model,
            "weights": model.model_dump(mode="json", exclude_none=True, exclude={"versions"}),
            "versions": {**model.versions, self.kind.package: version(self.kind.package)},
            "sampler": sampler.settings,
            "solver": sampler.solver_name,
            "solver_settings": sampler.solver_settings,
            "dtype": self.source.dtype,
            "device": str(device_of(sampler.model)),
            "threads": torch.get_num_threads(),
            "calibration": {
                "samples": self.size.calibration_samples,
                "seeds": list(self.size.calibration_seeds),
                "max_lag": MAX_LAG,
            },
        }
        return json.loads(json.dumps(known, default=str))


def subject_of(kind: Kind, settings: Settings) -> Subject:
    """Return what is evaluated of a modality; nothing is loaded yet.

    Raises:
        MissingPackageError: The package of the modality is not installed.
    """
    modality = kind.load()
    size = settings.size_of(kind)
    given = settings.model_of(kind)
    prompts = settings.prompts_of(kind)
    own: dict[str, Any] = dict(kind.own) if given is None else {"model": given}
    own |= {"prompts": prompts} if prompts else {}
    steps = settings.steps_of(kind)
    own |= {} if steps is None else {"steps": steps}
    source = modality.source(
        **own,
        device=settings.device,
        dtype=settings.dtype,
        adapter=settings.adapter,
        samples=size.samples * len(size.seeds),
        batch=size.samples,
    )
    return Subject(kind=kind, modality=modality, source=source, size=size, settings=settings)
