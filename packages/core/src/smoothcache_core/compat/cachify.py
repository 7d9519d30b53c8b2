"""The interface of cachify: `from smoothcache_core.compat import cachify`.

Source: NVIDIA's Cache Diffusion, an example of TensorRT Model Optimizer, in both of its forms:
`prepare(pipe, num_inference_steps, config_list)` as of release 0.13, `prepare(pipe, config_list)`
as of 0.17. What differs: runs are recognised, so nothing of one reaches the next, with `infer` or
without; the model is restored by `disable`; a second `prepare` takes the place of the first; on
transformers deltas are reused, and no configuration cuts the latent off. There is no TensorRT.
"""

import functools
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.compat.cachify_config import Config, check_configs, schedule_for
from smoothcache_core.errors import AdapterError, AttachError, ScheduleError
from smoothcache_core.patching import Override
from smoothcache_core.runtime.attachment import Attachment
from smoothcache_core.runtime.cached import attach
from smoothcache_core.schedule.schedule import Schedule

SDXL_DEFAULT_CONFIG: list[Config] = [
    {
        "wildcard_or_filter_func": lambda name: "up_blocks.2" not in name,
        "select_cache_step_func": lambda step: (step % 2) != 0,
    }
]
"""Of SDXL only the last block up is computed at every other step."""

PIXART_DEFAULT_CONFIG: list[Config] = [
    {
        "wildcard_or_filter_func": lambda name: not _is_block(name, "2[1-7]"),
        "select_cache_step_func": lambda step: (step % 3) != 0,
    }
]
"""Of PixArt the last seven blocks are computed at every step, all at every third."""

SVD_DEFAULT_CONFIG: list[Config] = [
    {
        "wildcard_or_filter_func": lambda name: "up_blocks.3" not in name,
        "select_cache_step_func": lambda step: (step % 2) != 0,
    }
]
"""Of Stable Video Diffusion only the last block up is computed at every other step."""

SD3_DEFAULT_CONFIG: list[Config] = [
    {
        "wildcard_or_filter_func": lambda name: not _is_block(name, "1[6-9]|2[0-3]"),
        "select_cache_step_func": lambda step: (step % 2) != 0,
    }
]
"""Of Stable Diffusion 3 the last eight blocks are computed at every step, all at every other."""


def _is_block(name: str, numbers: str) -> bool:
    return re.search(rf"transformer_blocks\.({numbers})(\.|$)", name) is not None


_PREPARED = "_smoothcache_cachify"  # where a pipeline has what was prepared

_SETTERS = ("set_timesteps", "set_begin_index")
"""Methods of schedulers that decide on how many steps a run makes: from an image it makes fewer."""

_STEPS = 50  # diffusers' usual number of steps, until a scheduler says how many there are


# ---------------------------------------------------------------------------- the interface


def prepare(
    pipe: Any,
    num_inference_steps: int | Sequence[Config] | None = None,
    config_list: Sequence[Config] | None = None,
) -> None:
    """Switch the cache of a pipeline on; what was prepared before is taken away.

    The number of steps is what its scheduler is set to, run by run.

    Example:
        Both forms::

            cachify.prepare(pipe, 30, cachify.SDXL_DEFAULT_CONFIG)
            cachify.prepare(pipe, cachify.SDXL_DEFAULT_CONFIG)

    Args:
        pipe: A pipeline with a `unet` or a `transformer`.
        num_inference_steps: Steps of one run, for what has no scheduler; it may be left out.
        config_list: See `cachify_config.Config`; of several that name a module the last counts.

    Raises:
        AdapterError: The pipeline has no denoiser that is known, or a configuration names nothing.
        ScheduleError: A configuration is none, or reuses at the first step.
        AttachError: Another cache is on the model.
    """
    steps, configs = _arguments(num_inference_steps, config_list)
    check_configs(configs)
    schedule = schedule_of(pipe, configs, steps or _STEPS)
    if _PREPARED in vars(pipe):
        disable(pipe)
    vars(pipe)[_PREPARED] = _Prepared(pipe, configs, schedule)
    enable(pipe)


def enable(pipe: Any) -> None:
    """Switch the cache on again; where it is on, the next call of the denoiser begins a run.

    Args:
        pipe: A pipeline that was prepared.

    Raises:
        AttachError: It was not prepared, or another cache is on the model.
    """
    _prepared(pipe).enable()


def disable(pipe: Any) -> None:
    """Switch the cache off; the model is as it was before `prepare`.

    Args:
        pipe: A pipeline; nothing happens if it was not prepared.
    """
    if _PREPARED in vars(pipe):
        _prepared(pipe).disable()


def reset_status(pipe: Any) -> None:
    """Begin a new run with the next call of the denoiser.

    There is no need to call it: a run that begins is recognised.

    Args:
        pipe: A pipeline that was prepared.

    Raises:
        AttachError: It was not prepared.
    """
    _prepared(pipe).reset()


@contextmanager
def infer(pipe: Any) -> Generator[Any]:
    """Begin with a new run inside a `with` block, and leave none behind.

    Args:
        pipe: A pipeline that was prepared.

    Yields:
        The pipeline.

    Raises:
        AttachError: It was not prepared.
    """
    reset_status(pipe)
    try:
        yield pipe
    finally:
        reset_status(pipe)


def get_model(pipe: Any) -> nn.Module:
    """Return the denoiser of a pipeline: its `unet`, or else its `transformer`.

    Args:
        pipe: A pipeline in the manner of diffusers.

    Raises:
        AdapterError: It has neither.
    """
    found = getattr(pipe, "unet", None)
    found = getattr(pipe, "transformer", None) if found is None else found
    if not isinstance(found, nn.Module):
        raise AdapterError(f"{type(pipe).__name__} has neither a unet nor a transformer")
    return found


def schedule_of(pipe: Any, config_list: Sequence[Config], num_inference_steps: int) -> Schedule:
    """Return configurations as a schedule, to save, evaluate, or follow by `cached_pipeline`.

    Example:
        In a file::

            cachify.schedule_of(pipe, cachify.SDXL_DEFAULT_CONFIG, 30).save("sdxl.json")

    Args:
        pipe: A pipeline with a `unet` or a `transformer`.
        config_list: As for `prepare`.
        num_inference_steps: Evaluations of one run.

    Raises:
        AdapterError: See `prepare`.
        ScheduleError: See `prepare`.
    """
    if num_inference_steps < 1:
        raise ScheduleError(f"a run has at least 1 step, got {num_inference_steps}")
    return schedule_for(get_model(pipe), config_list, num_inference_steps)


def cached_modules(pipe: Any) -> list["CachedModule"]:
    """Return what is cached in a pipeline, in the order in which it is called.

    Args:
        pipe: A pipeline that was prepared.

    Raises:
        AttachError: It was not prepared.
    """
    prepared, model = _prepared(pipe), denoiser(get_model(pipe))
    return [
        CachedModule(name, model.get_submodule(name), prepared) for name in prepared.schedule.rows
    ]


@dataclass(frozen=True)
class CachedModule:
    """One module that is cached.

    Attributes:
        name: Its path in the denoiser.
        block: The module, which has kept its place and its name.
    """

    name: str
    block: nn.Module
    _prepared: "_Prepared"

    @property
    def enabled(self) -> bool:
        """Whether the cache is on."""
        return self._prepared.attachment is not None

    @property
    def cur_step(self) -> int:
        """Steps that the run under way has begun."""
        on = self._prepared.attachment
        return 0 if on is None else on.evaluations

    @property
    def cached_results(self) -> Any:
        """What is kept of the run under way; None if nothing is."""
        on = self._prepared.attachment
        return None if on is None else on.kept().get(self.name)


# ---------------------------------------------------------------------------- what is prepared


class _Prepared:
    """The cache of one pipeline, on or off."""

    def __init__(self, pipe: Any, configs: Sequence[Config], schedule: Schedule) -> None:
        self._pipe, self._configs, self.schedule = pipe, configs, schedule
        self.attachment: Attachment | None = None
        self._heard: Override | None = None

    def enable(self) -> None:
        if self.attachment is not None:
            self.reset()
            return
        scheduler = getattr(self._pipe, "scheduler", None)
        if scheduler is not None:
            self._heard = self._following(scheduler)
        adapter = self.schedule.fingerprint.recorded_adapter
        assert adapter is not None
        try:
            self.attachment = attach(
                get_model(self._pipe), adapter, self.schedule, scheduler=scheduler
            )
        except BaseException:
            self._unhear()
            raise

    def disable(self) -> None:
        if self.attachment is not None:
            self.attachment.detach()
            self.attachment = None
            self._unhear()

    def reset(self) -> None:
        if self.attachment is not None:
            self.attachment.new_run()

    def _unhear(self) -> None:
        if self._heard is not None:
            self._heard.undo()
            self._heard = None

    def _following(self, scheduler: Any) -> Override:
        """Let the schedule be of as many steps as the scheduler is set to make, whenever it is."""
        kind = type(scheduler)
        names = [name for name in _SETTERS if callable(getattr(kind, name, None))]
        return Override(scheduler, {name: self._told(scheduler, name) for name in names})

    def _told(self, scheduler: Any, name: str) -> Callable[..., Any]:
        own = getattr(type(scheduler), name)

        @functools.wraps(own)  # diffusers reads its signature
        def method(this: Any, *args: Any, **kwargs: Any) -> Any:
            result = own(this, *args, **kwargs)
            if this is scheduler:
                begin = args[0] if name == "set_begin_index" and args else 0
                self._follow(len(this.timesteps) - int(begin))
            return result

        return method

    def _follow(self, steps: int) -> None:
        if self.attachment is not None and steps != self.schedule.evaluations:
            self.schedule = schedule_of(self._pipe, self._configs, steps)
            self.attachment.use(self.schedule)


def _prepared(pipe: Any) -> _Prepared:
    found = vars(pipe).get(_PREPARED)
    if not isinstance(found, _Prepared):
        raise AttachError(
            f"this {type(pipe).__name__} was not prepared; call cachify.prepare(pipe, config_list)"
        )
    return found


def _arguments(steps: object, configs: object) -> tuple[int | None, Any]:
    """Return steps and configurations, whichever form they were given in."""
    if configs is None and not isinstance(steps, int):
        return None, steps
    if steps is not None and (type(steps) is not int or steps < 1):
        raise ScheduleError(f"num_inference_steps is a number of at least 1, got {steps!r}")
    return steps if type(steps) is int else None, configs
