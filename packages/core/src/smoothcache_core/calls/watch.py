"""What a scheduler says of a run: how many evaluations are left, and with what it steps."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from smoothcache_core.calls.call import Call
from smoothcache_core.calls.clock import Scheduler, same_timestep
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.provenance import Setting

_FORMS: tuple[Callable[[float, float], float], ...] = (
    lambda timestep, _: timestep,  # as the scheduler holds it
    lambda timestep, most: timestep / most,  # as a share of the training timesteps: Flux
    lambda timestep, most: 1.0 - timestep / most,  # as the share that is done: Lumina 2
)
"""How pipelines hand a scheduler's timestep to the denoiser."""

_TRAINED = 1000
"""Training timesteps of a scheduler that does not say how many it has; those of diffusers' own."""

_ANSWER = ("return_dict",)
"""Arguments of `step` that say how its answer is packed, and decide nothing."""


class SchedulerWatch:
    """Follows one scheduler while runs are made.

    A scheduler that was given may not be the one that runs: servers copy it for every request. So
    what it holds is believed only if it was set for this run, or if the run's timesteps are its
    own.

    Args:
        scheduler: The scheduler; None if there is none, then nothing is refused or heard.

    Attributes:
        step_settings: Numbers and flags that the first `step` of this run was called with, its
            defaults included; None before.
    """

    def __init__(self, scheduler: Scheduler | None) -> None:
        self._scheduler = scheduler
        self._announced = False
        self._told = True
        self.step_settings: Mapping[str, Setting] | None = None

    # ------------------------------------------------------------------ what is heard

    def hear_timesteps(self) -> None:
        """`set_timesteps` is called: the next run is of this scheduler."""
        self._announced = True

    def hear_step(
        self, step: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        """`step` is called.

        Args:
            step: The method of the scheduler.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
        """
        if self.step_settings is None:
            self.step_settings = _settings(step, args, kwargs)
            self._told = False

    def news(self) -> Mapping[str, Setting]:
        """Return what was heard of `step` in this run, once; empty if nothing, or told before."""
        told, self._told = self._told, True
        return {} if told else self.step_settings or {}

    # ------------------------------------------------------------------ what is refused

    def begin(self, call: Call, evaluations: int, planned: Sequence[float] | None) -> None:
        """Compare the number of evaluations with what was planned, at the first call of a run.

        A run of a part of the timesteps is as many evaluations as are left from its first. Where
        that is not what was planned, it is refused unless what was planned is such a run.

        Args:
            call: The first call of the run.
            evaluations: Evaluations of the schedule.
            planned: Timesteps of the schedule's evaluations, if they are known.

        Raises:
            ScheduleError: The scheduler is set to another number of evaluations.
        """
        self.step_settings, self._told = None, True
        timesteps = getattr(self._scheduler, "timesteps", None)
        if timesteps is None:
            return
        index = _view_index(call, timesteps)
        if not self._announced and index is None:
            return
        starts = self._starts(call, timesteps, index)
        fits = evaluations in {len(timesteps) - start for start in starts}
        if not fits and not self._is_such_a_run(timesteps, starts, evaluations, planned):
            raise ScheduleError(self._refusal(len(timesteps), starts[0], evaluations))
        self._announced = False

    def _starts(self, call: Call, timesteps: Any, index: int | None) -> list[int]:
        """Return which of the timesteps a run may begin with, at least one; 0 if nothing says."""
        begin = getattr(self._scheduler, "begin_index", None)
        if begin is not None:
            return [begin]
        if index is not None:
            return [index]
        if call.timestep is None or (
            isinstance(timesteps, Tensor) and timesteps.device.type != "cpu"
        ):
            return [0]
        found = [
            place
            for values in self._forms(timesteps)
            for place, value in enumerate(values)
            if same_timestep(call.timestep, value)
        ]
        return found or [0]

    def _is_such_a_run(
        self,
        timesteps: Any,
        starts: Sequence[int],
        evaluations: int,
        planned: Sequence[float] | None,
    ) -> bool:
        """Whether the planned timesteps are some of the scheduler's: what ends early, say.

        This waits for timesteps on a device, but only where a run is refused otherwise.
        """
        if not planned:
            return False
        for values in self._forms(timesteps):
            known = [any(same_timestep(one, value) for value in values) for one in planned]
            few = all(known) and len(values) < evaluations  # several evaluations per timestep
            if few or any(_begins_with(values[start:], planned) for start in starts):
                return True
        return False

    def _forms(self, timesteps: Any) -> list[list[float]]:
        """Return the timesteps as the denoiser may be given them."""
        config: Mapping[str, Any] = getattr(self._scheduler, "config", None) or {}
        most = config.get("num_train_timesteps") or _TRAINED
        values = [float(timestep) for timestep in timesteps]
        return [[form(value, most) for value in values] for form in _FORMS]

    def _refusal(self, total: int, start: int, evaluations: int) -> str:
        left = total - start
        begins = f" and the run begins with number {start + 1}, so {left} are left" if start else ""
        return (
            f"{type(self._scheduler).__name__} is set to {total} evaluations{begins}, but the "
            f"schedule is for {evaluations}; change num_inference_steps to get {evaluations}, or "
            f"plan for {left}"
        )


def _view_index(call: Call, timesteps: Any) -> int | None:
    """Return which of the scheduler's timesteps a call's timestep is a view of, if it is one."""
    if not isinstance(timesteps, Tensor) or call.position is None:
        return None
    pointer, offset = call.position
    if timesteps.untyped_storage().data_ptr() != pointer:
        return None
    return (offset - timesteps.storage_offset()) // (timesteps.stride(0) if timesteps.ndim else 1)


def _begins_with(values: Sequence[float], planned: Sequence[float]) -> bool:
    return len(values) >= len(planned) and all(
        same_timestep(value, one) for value, one in zip(values, planned, strict=False)
    )


def _settings(
    step: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Setting]:
    """Return the numbers and flags among the optional arguments of a call of `step`."""
    signature = inspect.signature(step)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # the call itself will fail, and say why
        return {}
    bound.apply_defaults()
    optional = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is not parameter.empty and name not in _ANSWER
    }
    return {
        name: value
        for name, value in bound.arguments.items()
        if name in optional and _is_setting(value)
    }


def _is_setting(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, bool | int | str)
