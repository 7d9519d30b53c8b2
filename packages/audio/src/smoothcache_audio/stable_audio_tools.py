"""What is special about stable-audio-tools: its samplers, what it prints, and how to find it.

Its models are recognised by name, so that nothing here needs the library but what runs it.
"""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, TextIO

import torch
from smoothcache_core.errors import PipelineError
from smoothcache_core.patching import replaced
from torch import nn

WRAPPER = "ConditionedDiffusionModelWrapper"
DENOISER = "DiffusionTransformer"

RECIPE = (
    "pip install 'smoothcache-audio[stable-audio-tools]', then pip install --no-deps "
    "stable-audio-tools==0.0.19 k-diffusion==0.1.1 dctorch==0.1.2"
)
_NEEDED = (
    "stable_audio_tools",
    "k_diffusion",
    "dctorch",
    "alias_free_torch",
    "clip",
    "cleanfid",
    "einops",
    "einops_exts",
    "jsonmerge",
    "pkg_resources",
    "skimage",
    "torchaudio",
    "torchdiffeq",
    "torchsde",
    "torchvision",
)

ADAPTIVE = "k-dpm-adaptive"
V_SOLVERS: Mapping[str, int] = MappingProxyType(
    {
        "dpmpp-3m-sde": 1,
        "dpmpp-2m-sde": 1,
        "dpmpp-2m": 1,
        "k-heun": 2,
        "k-lms": 1,
        "k-dpm-2": 2,
        "k-dpmpp-2s-ancestral": 2,
        "k-dpm-fast": 1,
        "v-ddim": 1,
        "v-ddim-cfgpp": 1,
    }
)
"""Solvers of models that predict v, and their evaluations per step; where two, the last has one."""

TWO_STEPS = ("dpmpp-2m-sde", "dpmpp-3m-sde")
"""Solvers that fail in a single step."""

FLOW_SOLVERS: Mapping[str, int] = MappingProxyType(
    {"euler": 1, "dpmpp": 1, "pingpong": 1, "rk4": 4}
)
"""Solvers of models that predict a flow, and their evaluations per step."""

DEFAULT_SOLVERS: Mapping[str, str] = MappingProxyType(
    {"v": "dpmpp-3m-sde", "rectified_flow": "euler", "rf_denoiser": "pingpong"}
)
"""The solver of each training objective that is taken by default."""


def is_stable_audio_tools(model: object) -> bool:
    """Return whether a model is one that stable-audio-tools' factory built for generation."""
    return any(base.__name__ == WRAPPER for base in type(model).__mro__)


def denoiser_in(model: Any) -> nn.Module:
    """Return the denoiser of a model of stable-audio-tools.

    Raises:
        PipelineError: It is no transformer.
    """
    found = getattr(model.model, "model", model.model)
    if type(found).__name__ != DENOISER:
        raise PipelineError(
            f"this model of stable-audio-tools denoises by a {type(found).__name__}; only its "
            f"transformers ('type': 'dit', a {DENOISER}) can be cached"
        )
    return found


def solvers_of(objective: str) -> Mapping[str, int]:
    """Return the solvers for a training objective, and their evaluations per step."""
    return V_SOLVERS if objective == "v" else FLOW_SOLVERS


def check_solver(solver: str, objective: str, steps: int) -> None:
    """Refuse a solver that cannot sample a model, or has no fixed number of evaluations.

    Raises:
        PipelineError: It is refused.
    """
    if solver == ADAPTIVE:
        raise PipelineError(
            f"solver {ADAPTIVE!r} chooses the number of evaluations at run time, so it cannot be "
            "cached; use another solver, such as 'dpmpp-3m-sde'"
        )
    known = solvers_of(objective)
    if solver not in known:
        raise PipelineError(
            f"solver {solver!r} does not sample this model, whose objective is {objective!r}; its "
            f"solvers are {', '.join(known)}"
        )
    if steps < 2 and solver in TWO_STEPS:
        raise PipelineError(f"solver {solver!r} makes at least 2 steps, got {steps}")


def evaluations_of(solver: str, objective: str, steps: int) -> int:
    """Return how many evaluations a solver makes in `steps` steps."""
    per_step = solvers_of(objective)[solver]
    return 2 * steps - 1 if per_step == 2 else per_step * steps


def divided_steps(solver: str, steps: int, factor: int) -> int:
    """Return in how many steps a solver passes the noise levels of a run, and those between.

    k-diffusion's solvers spread their levels from the first to the last that is not 0, and jump
    from there to the end, as the divided run does; others spread theirs to the end.

    Args:
        solver: Name of the solver, such as `"dpmpp-2m"`.
        steps: Steps of the run.
        factor: Steps that are made of one, at least 2.
    """
    to_last = solver in V_SOLVERS and not solver.startswith("v-")
    return factor * (steps - 1) + 1 if to_last else factor * steps


def missing_packages() -> list[str]:
    """Return what has to be installed before stable-audio-tools can be imported."""
    return [name for name in _NEEDED if find_spec(name) is None]


def require() -> None:
    """Raise `PipelineError` if stable-audio-tools is not installed."""
    missing = missing_packages()
    if missing:
        raise PipelineError(
            f"this model needs stable-audio-tools, of which {', '.join(missing)} cannot be found; "
            f"install it with: {RECIPE}"
        )


@contextmanager
def runs_announced(model: Any) -> Generator[None]:
    """Let the denoiser hear of every run that `generate_diffusion_cond` starts.

    The last that it asks of the model before sampling is `get_conditioning_inputs`. The denoiser
    hears of it as those of diffusers do, by a method of theirs that it does not have itself.
    """
    denoiser = denoiser_in(model)
    prepare = model.get_conditioning_inputs

    def preparing(*args: Any, **kwargs: Any) -> Any:
        vars(denoiser)["_reset_stateful_cache"]()
        return prepare(*args, **kwargs)

    with ExitStack() as stack:
        if "_reset_stateful_cache" not in vars(denoiser):
            stack.enter_context(replaced(denoiser, "_reset_stateful_cache", lambda: None))
        stack.enter_context(replaced(model, "get_conditioning_inputs", preparing))
        yield


@contextmanager
def quiet() -> Generator[None]:
    """Hold back what stable-audio-tools prints, and its progress bars; warnings still show."""
    with (
        redirect_stdout(io.StringIO()),
        redirect_stderr(_WithoutBars(sys.stderr)),
        rounding_ignored(),
    ):
        yield


@contextmanager
def rounding_ignored() -> Generator[None]:
    """Ignore what torchsde warns of at every sample: that bounds of noise are float32 numbers."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Should have t[ab]", category=UserWarning)
        yield


@contextmanager
def quiet_loading() -> Generator[None]:
    """Hold back what building a model prints, and the warnings of what it is built with."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _WithoutBars(io.TextIOBase):
    """Passes on what is written to a stream, but for progress bars."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        moves_only = not text.replace("\x1b[A", "").strip("\n")
        if not text.startswith("\r") and not moves_only:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


@contextmanager
def backends_kept() -> Generator[None]:
    """Put torch's switches back that `generate_diffusion_cond` sets for the whole process."""
    switches = [
        (torch.backends.cuda.matmul, "allow_tf32"),
        (torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
        (torch.backends.cudnn, "allow_tf32"),
        (torch.backends.cudnn, "benchmark"),
    ]
    before = [getattr(owner, name) for owner, name in switches]
    try:
        yield
    finally:
        for (owner, name), value in zip(switches, before, strict=True):
            setattr(owner, name, value)
