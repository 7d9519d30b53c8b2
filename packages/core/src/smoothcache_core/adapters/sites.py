"""Sites: the cacheable submodules of a denoiser, and the adapters that find them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, Protocol

from smoothcache_core.arguments import wrong_kind
from smoothcache_core.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn


Target = Literal["output", "delta", "denoiser", "guidance"]


Guidance = Literal["cond-first", "uncond-first"]


@dataclass(frozen=True, kw_only=True)
class Site:
    """One cacheable submodule of a denoiser.

    Example:
        >>> Site(path="transformer_blocks.3.attn1", kind="attn1", block=3).row_keys()
        ('transformer_blocks.3.attn1', 'attn1-3', 'attn1')

    Attributes:
        path: Full module path inside the denoiser, for example `"transformer_blocks.3.attn1"`;
            empty for the denoiser itself.
        kind: Component type shared by sites, for example `"attn1"`.
        block: Index of the block among the blocks of its list, from 0.
        target: What is cached: the submodule's `"output"`, its `"delta"` (output minus input), the
            output of the whole `"denoiser"`, or the `"guidance"` difference (conditional minus
            unconditional output of the denoiser).
        inputs: For a delta, the names of the forward arguments that correspond to the outputs.
        last: For the delta of a span of blocks, the path of its last block; `path` is the first.
            Where it is in another list, the blocks of the two lists take turns, each of the second
            after that of its number in the first. Empty if the site is one module.
    """

    path: str
    kind: str
    block: int
    target: Target = "output"
    inputs: tuple[str, ...] = ()
    last: str = ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of its modules: of all blocks of a span, else one.

        Raises:
            AdapterError: `path` and `last` are not two blocks of one list, or of two lists that
                take turns, in this order.
        """
        if not self.last:
            return (self.path,)
        (parent, _, first), (other, _, last) = (p.rpartition(".") for p in (self.path, self.last))
        fewest = 1 if parent == other else 0
        numbers = first.isdigit() and last.isdigit()
        if not numbers or int(last) - int(first) < fewest:
            raise AdapterError(
                f"a span goes from a block to a later one of the same list, or of one that takes "
                f"turns with it, not from {self.path!r} to {self.last!r}"
            )
        blocks = range(int(first), int(last) + 1)
        lists = dict.fromkeys((parent, other))
        return tuple(f"{each}.{n}" if each else str(n) for n in blocks for each in lists)

    def row_keys(self) -> tuple[str, ...]:
        """Return the schedule keys that may name this site, the most specific first."""
        if not self.path:
            return (self.kind,)
        return self.path, f"{self.kind}-{self.block}", self.kind


DENOISER = Site(path="", kind="denoiser", block=0, target="denoiser")
"""The denoiser's output: where it is filled, the whole evaluation is skipped."""


GUIDANCE = Site(path="", kind="guidance", block=0, target="guidance")
"""The guidance difference: where it is filled, the unconditional pass is skipped."""


Names = str | tuple[str, ...]
"""The name of an argument, or the names of several."""


def names_of(latent: Names) -> tuple[str, ...]:
    """Return the names of a denoiser's latents, of which there is mostly one.

    Args:
        latent: What an adapter says of them.
    """
    return (latent,) if isinstance(latent, str) else tuple(latent)


class Adapter(Protocol):
    """What the library must know of a model family; any object with these members will do.

    Use `PatternAdapter`, which has all of them, unless patterns cannot say it.

    Example:
        A `PatternAdapter` is one. What patterns cannot say, a class of one's own can:

        >>> class MyAdapter(PatternAdapter):
        ...     def variant(self, model, args, kwargs):
        ...         return kwargs.get("num_frames")  # the layout inside depends on it
        >>> adapter: Adapter = MyAdapter(name="mine", patterns=(SitePattern("blocks.*", "block"),))

    Attributes:
        name: Name of the family, recorded in calibrations and schedules.
        latent: Name of the denoiser's forward argument that holds the noisy latent; of a denoiser
            that takes several and answers each, as of a video and its sound, a tuple of names.
        timestep: Name of the denoiser's forward argument that holds the timestep.
        guidance: Which half of the batch is conditional, where guidance is batched: `"cond-first"`
            or `"uncond-first"`; None where it is not batched, or not known.
    """

    @property
    def name(self) -> str:
        """Name of the family, as fingerprints hold it."""
        ...

    @property
    def latent(self) -> Names:
        """Name of the latent among the arguments of `forward`, or those of several latents."""
        ...

    @property
    def timestep(self) -> str:
        """Name of the timestep among the arguments of `forward`."""
        ...

    @property
    def guidance(self) -> Guidance | None:
        """Which half of the batch is conditional, where guidance is batched.

        None where it is not, or not known: then the guidance difference of batched guidance is no
        target.
        """
        ...

    def sites(self, model: nn.Module) -> Sequence[Site]:
        """Return the sites of `model`, kind by kind or in execution order.

        Args:
            model: The denoiser, not its compiled wrapper.

        Raises:
            AdapterError: The model does not have what this adapter expects.
        """
        ...

    def variant(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Hashable:
        """Return what, besides its latent, decides on the layout inside the denoiser in a call.

        When it changes in a run, nothing that was kept is reused. It is called before every
        evaluation, and should not wait for the device. None if there is nothing.

        Args:
            model: The denoiser, not its compiled wrapper.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
        """
        ...


def check_adapter(adapter: Adapter) -> None:
    """Refuse an object that lacks members of an adapter.

    Raises:
        AdapterError: It lacks some.
    """
    if isinstance(adapter, type | str | PurePath) or type(adapter).__name__ == "Schedule":
        raise AdapterError(wrong_kind(adapter, "adapter", name="adapter"))
    members = [name for name in vars(Adapter) if not name.startswith("_")]
    there = set(dir(adapter))  # a property may have to look for what it says
    missing = [name for name in members if name not in there and not hasattr(adapter, name)]
    if len(missing) == len(members):
        raise AdapterError(wrong_kind(adapter, "adapter", name="adapter"))
    if missing:
        raise AdapterError(
            f"this {type(adapter).__name__} is no adapter, it has no {' and no '.join(missing)}; "
            "see smoothcache_core.Adapter, or take a PatternAdapter, which has defaults"
        )
