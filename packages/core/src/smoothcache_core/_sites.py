"""Sites: the cacheable submodules of a denoiser, and the adapters that find them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from torch import nn

from smoothcache_core._errors import AdapterError

Target = Literal["output", "delta", "denoiser", "guidance"]
Guidance = Literal["cond-first", "uncond-first"]
_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Site:
    """One cacheable submodule of a denoiser.

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
            AdapterError: `path` and `last` are not two blocks of one list, in this order.
        """
        if not self.last:
            return (self.path,)
        (parent, _, first), (other, _, last) = (p.rpartition(".") for p in (self.path, self.last))
        if parent != other or not (first.isdigit() and last.isdigit()) or int(first) >= int(last):
            raise AdapterError(
                f"a span goes from a block to a later one of the same list, not from {self.path!r} "
                f"to {self.last!r}"
            )
        prefix = f"{parent}." if parent else ""
        return tuple(f"{prefix}{block}" for block in range(int(first), int(last) + 1))

    def row_keys(self) -> tuple[str, ...]:
        """Return the schedule keys that may name this site, the most specific first."""
        if not self.path:
            return (self.kind,)
        return self.path, f"{self.kind}-{self.block}", self.kind


DENOISER = Site(path="", kind="denoiser", block=0, target="denoiser")
"""The denoiser's output: where it is filled, the whole evaluation is skipped."""

GUIDANCE = Site(path="", kind="guidance", block=0, target="guidance")
"""The guidance difference: where it is filled, the unconditional pass is skipped."""


class Adapter(Protocol):
    """What is known about a family of models. Any object with these members will do.

    Attributes:
        name: Name of the family, recorded in calibrations and schedules.
        latent: Name of the denoiser's forward argument that holds the noisy latent.
        timestep: Name of the denoiser's forward argument that holds the timestep.

    An adapter may also have `guidance`, see `PatternAdapter`; without it the guidance difference
    of batched guidance is no target. And it may have a method `variant(model, args, kwargs)`, which
    returns what, besides its latent, decides on the layout inside the denoiser in a call: when that
    changes in a run, nothing that was kept is reused. It is called before every evaluation, and
    should not wait for the device.
    """

    @property
    def name(self) -> str: ...
    @property
    def latent(self) -> str: ...
    @property
    def timestep(self) -> str: ...

    def sites(self, model: nn.Module) -> Sequence[Site]:
        """Return the sites of `model`, kind by kind or in execution order.

        Raises:
            AdapterError: The model does not have what this adapter expects.
        """
        ...


@dataclass(frozen=True)
class SitePattern:
    """A path pattern and the kind of the sites it finds.

    Attributes:
        path: Module path whose segments may hold the wildcards of `fnmatch`; a wildcard
            never crosses a dot. The first wildcard names the block index.
        kind: Kind of the sites found.
        target: See `Site`.
        inputs: See `Site`.
        optional: Whether some models of the family have nothing there.
    """

    path: str
    kind: str
    target: Target = "output"
    inputs: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class SpanPattern:
    """A list of blocks and a part of it, whose blocks become one site.

    Its target is the delta: the output of its last block minus the input of its first. Where it is
    filled, none of its blocks is computed.

    Attributes:
        path: Path of the list.
        kind: Kind of the site found.
        first: Index of the first block; from the end of the list if negative.
        last: Index of the last block, likewise; it belongs to the span.
        inputs: See `Site`; the same for all blocks.
    """

    path: str
    kind: str
    first: int = 1
    last: int = -1
    inputs: tuple[str, ...] = ()

    def site(self, model: nn.Module, adapter: str) -> Site | None:
        """Return the site in `model`, or None if nothing is at the path.

        Raises:
            AdapterError: The list has no such blocks.
        """
        found = [module for _, module in _walk(model, self.path.split("."), ())]
        if not found or found[0] is None:
            return None
        names = [name for name, _ in found[0].named_children()]
        places = [i + len(names) if i < 0 else i for i in (self.first, self.last)]
        if not 0 <= places[0] <= places[1] < len(names):
            raise AdapterError(
                f"adapter {adapter!r}: {self.path!r} has {len(names)} blocks, so there is no span "
                f"from {self.first} to {self.last}"
            )
        first, last = (f"{self.path}.{names[place]}" for place in places)
        span = "" if first == last else last
        site = Site(
            path=first,
            kind=self.kind,
            block=places[0],
            target="delta",
            inputs=self.inputs,
            last=span,
        )
        assert site.paths
        return site


@dataclass(frozen=True, kw_only=True)
class PatternAdapter:
    """An adapter that is only data: path patterns and a few argument names.

    Example:
        >>> PatternAdapter(
        ...     name="my-dit",
        ...     patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.mlp", "mlp")),
        ... )

    Attributes:
        name: Name of the family.
        patterns: Where the sites are, in execution order inside a block.
        classes: Names of the model classes this adapter is meant for.
        latent: See `Adapter`.
        timestep: See `Adapter`.
        guidance: Which half of the batch is conditional, where guidance is batched; None where it
            is not, or not known.
    """

    name: str
    patterns: tuple[SitePattern | SpanPattern, ...]
    classes: tuple[str, ...] = ()
    latent: str = "hidden_states"
    timestep: str = "timestep"
    guidance: Guidance | None = None

    def sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Return the sites of `model`; components that are `None` are skipped.

        Raises:
            AdapterError: A pattern matches nothing, no site is left, or two sites are one module.
        """
        found = [self._match(model, pattern) for pattern in self.patterns]
        barren = [p.path for p, sites in zip(self.patterns, found, strict=True) if sites is None]
        if barren:
            raise AdapterError(
                f"adapter {self.name!r} found nothing at {barren} in {type(model).__name__}; "
                f"its children are {[name for name, _ in model.named_children()]}"
            )
        sites = tuple(site for group in found for site in group or ())
        if not sites:
            raise AdapterError(
                f"adapter {self.name!r} found no site in {type(model).__name__}: every component "
                f"at {[p.path for p in self.patterns]} is None"
            )
        _refuse_shared_modules(model, sites, self.name)
        return sites

    def _match(self, model: nn.Module, pattern: SitePattern | SpanPattern) -> list[Site] | None:
        """Return the sites of one pattern, or None if nothing is at its path."""
        if isinstance(pattern, SpanPattern):
            span = pattern.site(model, self.name)
            return None if span is None else [span]
        segments = pattern.path.split(".")
        matches = list(_walk(model, segments, ()))
        wildcard = next(
            (i for i, s in enumerate(segments) if "*" in s or "?" in s or "[" in s), None
        )
        sites = [
            Site(
                path=".".join(path),
                kind=pattern.kind,
                block=_block_index(path, wildcard),
                target=pattern.target,
                inputs=pattern.inputs,
            )
            for path, module in matches
            if module is not None
        ]
        return sites if matches or pattern.optional else None


def guidance_order(adapter: Adapter) -> Guidance | None:
    """Return which half of a guided batch is conditional, if the adapter says so."""
    return getattr(adapter, "guidance", None)


def conditional_part(adapter: Adapter, branches: Sequence[str]) -> int | None:
    """Return which conditioning pass is the conditional one, if that can be told.

    Args:
        adapter: Says it for batched guidance.
        branches: Names of passes that are calls of their own, in their order.
    """
    if len(branches) == 2:
        named = [is_unconditional(branch) for branch in branches]
        return named.index(False) if any(named) and not all(named) else None
    return {"cond-first": 0, "uncond-first": 1, None: None}[guidance_order(adapter)]


def is_unconditional(branch: str) -> bool:
    """Return whether a conditioning pass of this name is the unconditional (or negative) one."""
    return "uncond" in branch or "neg" in branch


def _walk(
    module: nn.Module, segments: Sequence[str], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], nn.Module | None]]:
    """Yield the path and module (None for an absent component) that `segments` lead to."""
    segment, rest = segments[0], segments[1:]
    for name, child in _children(module, segment):
        if rest and child is not None:
            yield from _walk(child, rest, (*path, name))
        elif not rest:
            yield (*path, name), child


def _children(module: nn.Module, segment: str) -> Iterator[tuple[str, nn.Module | None]]:
    # named_children() hides a module that is registered twice
    own = module._modules  # pyright: ignore[reportPrivateUsage]
    registered = [(name, child) for name, child in own.items() if fnmatchcase(name, segment)]
    yield from registered
    if not registered and getattr(module, segment, _MISSING) is None:
        yield segment, None


def _block_index(path: Sequence[str], wildcard: int | None) -> int:
    if wildcard is not None and path[wildcard].isdigit():
        return int(path[wildcard])
    return next((int(part) for part in path if part.isdigit()), 0)


def _refuse_shared_modules(model: nn.Module, sites: Sequence[Site], adapter: str) -> None:
    paths = [path for site in sites for path in site.paths]
    twice = [path for path in paths if paths.count(path) > 1]
    if twice:
        raise AdapterError(f"adapter {adapter!r}: {twice[0]!r} is found by more than one pattern")
    owners: dict[int, str] = {}
    for path in paths:
        first = owners.setdefault(id(model.get_submodule(path)), path)
        if first != path:
            raise AdapterError(
                f"adapter {adapter!r}: {first!r} and {path!r} are the same module of "
                f"{type(model).__name__}; a site must be called from one place"
            )
