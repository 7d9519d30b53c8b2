"""One pipeline of the zoo."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import smoothcache_image
import torch
from smoothcache_core import Sampler
from torch import Tensor, nn

STEPS = 10


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A pipeline that is tried.

    Attributes:
        name: Its name in the table: its class, and what is special about the call.
        build: Makes it.
        arguments: Makes what it is called with, beside the generator and the number of steps.
        output: Where its result holds the final latent.
        passes: Names of the conditioning passes, if they are calls that nobody announces.
        steps: What the number of steps is called with.
        sampler_of: Takes the pipeline apart: the function of a package of that name.
        others: Makes what other runs on the same model are called with instead: another image,
            another number of frames, another size. Nothing of them may reach this one.
        refused: Parts of the reasons why there is no plan, by target; None if that is not said.
    """

    name: str
    build: Callable[[], Any]
    arguments: Callable[[], dict[str, Any]] = field(default=dict[str, Any])
    output: str = "images"
    passes: tuple[str, ...] = ()
    steps: dict[str, Any] = field(default_factory=lambda: {"num_inference_steps": STEPS})
    sampler_of: Callable[..., Sampler] = smoothcache_image.sampler_of
    others: Callable[[], Sequence[dict[str, Any]]] = tuple
    refused: Mapping[str, str] | None = None

    def pipeline(self) -> Any:
        """Return the pipeline, its weights always the same."""
        torch.manual_seed(0)
        pipe = self.build()
        pipe.set_progress_bar_config(disable=True)
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                lively(part.eval())
        return pipe

    def sample(self, pipe: Any, seed: int, **changes: Any) -> Tensor:
        """Sample once, with some arguments changed; everything random comes from the seed."""
        torch.manual_seed(seed)
        given = {**self.arguments(), **changes}
        generator = torch.Generator().manual_seed(seed)
        result = pipe(**given, **self.steps, generator=generator)
        found = result.get(self.output) if hasattr(result, "get") else getattr(result, self.output)
        return torch.as_tensor(found[0] if isinstance(found, list) and len(found) == 1 else found)


@torch.no_grad()
def lively(model: nn.Module) -> None:
    """Give weights that begin as zeros some numbers, so that nothing is constant."""
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.is_floating_point() and not parameter.any():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.1 * drawn)


def assembled(name: str, /, **parts: Any) -> Any:
    """Return a pipeline of diffusers; components that are not given are None."""
    kind = getattr(importlib.import_module("diffusers"), name)
    known = inspect.signature(kind.__init__).parameters
    required = [
        each.name
        for each in known.values()
        if each.default is each.empty and each.name not in ("self", "args", "kwargs")
    ]
    return kind(**(dict.fromkeys(required) | parts))


def of(name: str, /, **settings: Any) -> Any:
    """Return a model or a scheduler of diffusers."""
    return getattr(importlib.import_module("diffusers"), name)(**settings)


def words(*shape: int, seed: int = 1) -> Tensor:
    """Return embeddings, the same in every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def flow(**settings: Any) -> Any:
    """Return the scheduler of flow models."""
    return of("FlowMatchEulerDiscreteScheduler", **settings)


def ddim(**settings: Any) -> Any:
    """Return the scheduler of Stable Diffusion."""
    beta = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return of("DDIMScheduler", **beta, clip_sample=False, set_alpha_to_one=False, **settings)
