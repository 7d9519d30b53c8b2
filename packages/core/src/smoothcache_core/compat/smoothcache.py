"""The interface of SmoothCache: `from smoothcache_core.compat.smoothcache import ...`.

Source: the public repository of SmoothCache (arXiv 2411.10510), release 0.1; names, arguments and
attributes are its. What differs: every run begins anew, nothing is printed, a schedule that would
cache nothing is refused, and the model is restored exactly. A run of another length than the
schedule is refused or told, where the original cached nothing or went on with outputs of the run
before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.compat.blocks import (
    BlockClasses,
    block_adapter,
    listed,
    renamed,
    schedule_for,
)
from smoothcache_core.compat.recording import CalibrationHelper, DiffuserCalibrationHelper
from smoothcache_core.compat.switched import Switched
from smoothcache_core.errors import warn
from smoothcache_core.runtime.attachment import Attachment
from smoothcache_core.runtime.cached import attach

__all__ = [
    "CalibrationHelper",
    "DiTCacheHelper",
    "DiffuserCacheHelper",
    "DiffuserCalibrationHelper",
    "SmoothCacheHelper",
]

Rows = Mapping[str, Sequence[int]]
"""A schedule of SmoothCache: 1 (compute) or 0 (reuse) for every evaluation, by component
(`"attn1"`), or by component and block (`"attn1-3"`), which counts more."""


class SmoothCacheHelper(Switched):
    """Reuses outputs of components of blocks, by a schedule, between `enable` and `disable`.

    It is a context manager too.

    Args:
        model: The denoiser that the sampler calls.
        block_classes: Classes of the blocks, or their names; one, or several.
        components_to_wrap: Names of the blocks' attributes whose outputs are reused.
        schedule: See `Rows`; components that it does not name are always computed.

    Attributes:
        model: The denoiser that is cached.
        block_classes: Classes of the blocks, a list.
        components_to_wrap: Names of their attributes, a list.
        schedule: The schedule as it was given, under the names of components.

    Raises:
        AdapterError: The model has no such blocks or components.
        ScheduleError: The schedule is not valid, or would cache nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        block_classes: BlockClasses,
        components_to_wrap: Sequence[str],
        schedule: Rows,
    ) -> None:
        self.model = model
        self.block_classes = listed(block_classes)
        self.components_to_wrap = list(components_to_wrap)
        self._adapter = block_adapter(model, block_classes, components_to_wrap)
        self._sites = self._adapter.sites(denoiser(model))
        self.schedule, changed = renamed(schedule, self.components_to_wrap)
        if changed:
            taken = " and ".join(f"{old!r} for {new!r}" for old, new in changed.items())
            warn(f"of the schedule {taken} is taken, as {type(denoiser(model)).__name__} calls it")
        self._planned, left = schedule_for(self.schedule, self.components_to_wrap)
        if left:
            warn(f"{left} of the schedule are not used: only {components_to_wrap} is wrapped")
        self._attachment: Attachment | None = None

    # ------------------------------------------------------------------ switching it on and off

    @property
    def enabled(self) -> bool:
        """Whether the cache is on."""
        return self._attachment is not None

    def enable(self) -> None:
        """Switch the cache on; where it is on, the next call of the denoiser begins a new run.

        Raises:
            AttachError: Another cache is on the model.
            ScheduleError: The schedule does not fit the model.
        """
        if self._attachment is not None:
            self.reset_state()
            return
        self._attachment = attach(self.model, self._adapter, self._planned)

    def disable(self) -> None:
        """Switch the cache off; the model is as it was before. Where it is off, nothing happens."""
        if self._attachment is not None:
            attachment, self._attachment = self._attachment, None
            attachment.detach()

    def wrap_components(self) -> None:
        """Switch the cache on, as `enable`."""
        self.enable()

    def unwrap_components(self) -> None:
        """Switch the cache off, as `disable`."""
        self.disable()

    def reset_state(self) -> None:
        """Begin a new run with the next call of the denoiser.

        There is no need to call it: a run that begins is recognised.
        """
        if self._attachment is not None:
            self._attachment.new_run()

    def abandon(self) -> None:
        """Switch the cache off, without a remark on its use."""
        if self._attachment is not None:
            attachment, self._attachment = self._attachment, None
            attachment.detach(quietly=True)

    # ------------------------------------------------------------------ what is known of the run

    @property
    def current_steps(self) -> dict[str, int]:
        """Evaluations that the run under way has begun, by full names of components."""
        count = 0 if self._attachment is None else self._attachment.evaluations
        return {site.path: count for site in self._sites}

    @property
    def cache(self) -> dict[str, Any]:
        """What is kept of the run under way: the newest output by full names of components."""
        return {} if self._attachment is None else dict(self._attachment.kept())

    def is_skip_step(self, full_name: str) -> bool:
        """Return whether the evaluation under way reuses the output of a component.

        Args:
            full_name: Its path in the denoiser, such as `"transformer_blocks.3.attn1"`.
        """
        step = self.current_steps.get(full_name, 0) - 1
        rows = [self._planned.row(site) for site in self._sites if site.path == full_name]
        return any(0 <= step < len(row) and not row[step] for row in rows)


class DiffuserCacheHelper(SmoothCacheHelper):
    """The helper for diffusers' models of `BasicTransformerBlock`, such as `DiTPipeline`'s.

    Its components are `attn1`, and `attn2` and `ff` too where the schedule names them.

    Args:
        model: The denoiser, such as `pipe.transformer`.
        schedule: See `Rows`; `attn` and `mlp` are taken for `attn1` and `ff`.
    """

    def __init__(self, model: nn.Module, schedule: Rows) -> None:
        super().__init__(model, "BasicTransformerBlock", _named(schedule), schedule)


class DiTCacheHelper(SmoothCacheHelper):
    """The helper for facebookresearch/DiT, whose blocks have `attn` and `mlp`.

    Args:
        model: The denoiser, whose `forward_with_cfg` is sampled with.
        schedule: Rows of `attn` and `mlp`, see `Rows`.
    """

    def __init__(self, model: nn.Module, schedule: Rows) -> None:
        super().__init__(model, "DiTBlock", ["attn", "mlp"], schedule)


def _named(schedule: Rows) -> list[str]:
    """Return the components that are wrapped: `attn1`, and others that a schedule names."""
    kinds = {str(key).partition("-")[0] for key in schedule}
    wanted = {"attn2": ("attn2",), "ff": ("ff", "mlp")}
    return ["attn1", *(name for name, keys in wanted.items() if kinds.intersection(keys))]
