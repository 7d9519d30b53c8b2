"""Adapters written as data: patterns of module paths."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from smoothcache_core.adapters.sites import Guidance, Names, Site, Target
from smoothcache_core.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn


_MISSING = object()


@dataclass(frozen=True)
class SitePattern:
    """A path pattern and the kind of the sites it finds.

    Example:
        >>> SitePattern("blocks.*", "block").target
        'output'
        >>> delta = SitePattern("blocks.*.ff", "ff", target="delta", inputs=("hidden_states",))

    Attributes:
        path: Module path whose segments may hold the wildcards of `fnmatch`; a wildcard never
            crosses a dot. The first wildcard names the block index.
        kind: Kind of the sites found: what schedules and tables call them, such as `"attn"`.
        target: What is cached of them: the `"output"`, or the `"delta"`, output minus input.
        inputs: For a delta, the names of the forward arguments that correspond to the outputs, one
            for each output; not used for an output.
        optional: Whether some models of the family have nothing there; if not, that is an error.
    """

    path: str
    kind: str
    target: Target = "output"
    inputs: tuple[str, ...] = ()
    optional: bool = False

    def __repr__(self) -> str:
        """Return the code that makes it, without what is as it is by default."""
        return f"SitePattern({self.path!r}, {self.kind!r}{_given(self, after=2)})"


@dataclass(frozen=True)
class SpanPattern:
    """A list of blocks and a part of it, whose blocks become one site.

    Its target is the delta: the output of its last block minus the input of its first. Where it is
    filled, none of its blocks is computed.

    Example:
        All blocks but the first and the last become one site:

        >>> span = SpanPattern("blocks", "middle", first=1, last=-2, inputs=("hidden_states",))

    Attributes:
        path: Path of the list of blocks, without wildcards.
        kind: Kind of the site found: what schedules and tables call it, such as `"middle"`.
        first: Index of the first block; from the end of the list if negative.
        last: Index of the last block, which belongs to the span; from the end if negative.
        inputs: Names of the forward arguments that correspond to the outputs, the same for all
            blocks.
        second: Path of another list of as many blocks, which are called in turn with those of
            `path`, each after that of its number: both belong to the span. Empty if there is none.
    """

    path: str
    kind: str
    first: int = 1
    last: int = -1
    inputs: tuple[str, ...] = ()
    second: str = ""

    def __repr__(self) -> str:
        """Return the code that makes it, without what is as it is by default."""
        return f"SpanPattern({self.path!r}, {self.kind!r}{_given(self, after=2)})"

    def site(self, model: nn.Module, adapter: str) -> Site | None:
        """Return the site in `model`, or None if nothing is at the path.

        Args:
            model: The denoiser, not its compiled wrapper.
            adapter: Name of the adapter, for the error.

        Raises:
            AdapterError: The list has no such blocks.
        """
        lists = [self.path, self.second] if self.second else [self.path]
        walked = [_walk(model, each.split("."), ()) for each in lists]
        found = [module for each in walked for _, module in each if module is not None]
        if len(found) < len(lists):
            return None
        names = [name for name, _ in found[0].named_children()]
        places = [i + len(names) if i < 0 else i for i in (self.first, self.last)]
        if not 0 <= places[0] <= places[1] < min(map(_length, found)):
            raise AdapterError(
                f"adapter {adapter!r}: {self.path!r} has {len(names)} blocks, so there is no span "
                f"from {self.first} to {self.last}"
            )
        first, last = f"{self.path}.{names[places[0]]}", f"{lists[-1]}.{names[places[1]]}"
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
        >>> adapter = PatternAdapter(
        ...     name="my-dit",
        ...     patterns=(SitePattern("blocks.*.attn", "attn"), SitePattern("blocks.*.mlp", "mlp")),
        ...     classes=("MyTransformer2DModel",),
        ... )

    Attributes:
        name: Name of the family, recorded in calibrations and schedules; a schedule of another name
            is refused.
        patterns: Where the sites are, in execution order inside a block; none if only whole
            evaluations are to be skipped, see `whole_evaluations`.
        classes: Names of the model classes this adapter is meant for, by which `find_adapter` finds
            it; none if it is given by hand.
        latent: Name of the denoiser's forward argument that holds the noisy latent; of a denoiser
            that takes several and answers each, as of a video and its sound, a tuple of names, in
            the order of the outputs.
        timestep: Name of the denoiser's forward argument that holds the timestep.
        guidance: Which half of the batch is conditional, where guidance is batched; None where it
            is not, or not known.
    """

    name: str
    patterns: tuple[SitePattern | SpanPattern, ...]
    classes: tuple[str, ...] = ()
    latent: Names = "hidden_states"
    timestep: str = "timestep"
    guidance: Guidance | None = None

    def __repr__(self) -> str:
        """Return the code that makes it, without what is as it is by default."""
        lines = "".join(f"\n    {pattern!r}," for pattern in self.patterns)
        end = "\n)" if self.patterns else ")"
        return f"PatternAdapter(name={self.name!r}, patterns=({lines}{end}{_given(self, after=2)})"

    def sites(self, model: nn.Module) -> tuple[Site, ...]:
        """Return the sites of `model`; components that are `None` are skipped.

        Args:
            model: The denoiser, not its compiled wrapper.

        Returns:
            The sites in the order of `patterns`, and of the modules inside a pattern; none only if
            there are no patterns.

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
        if self.patterns and not sites:
            raise AdapterError(
                f"adapter {self.name!r} found no site in {type(model).__name__}: every component "
                f"at {[p.path for p in self.patterns]} is None"
            )
        _refuse_shared_modules(model, sites, self.name)
        return sites

    def variant(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Hashable:
        """Return None: only the latent decides on the layout inside these denoisers.

        Args:
            model: The denoiser, not its compiled wrapper.
            args: Positional arguments of the call.
            kwargs: Keyword arguments of the call.
        """
        del model, args, kwargs

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


def _length(blocks: nn.Module) -> int:
    return len(list(blocks.named_children()))


def _given(value: PatternAdapter | SitePattern | SpanPattern, *, after: int) -> str:
    """Return the fields of a value that are not as they are by default, as arguments.

    Args:
        value: The adapter or pattern that is to be printed.
        after: How many of its fields are left out, from the first on.
    """
    others = [each for each in fields(value)[after:] if getattr(value, each.name) != each.default]
    return "".join(f", {each.name}={getattr(value, each.name)!r}" for each in others)


def _walk(
    module: nn.Module, segments: Sequence[str], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], nn.Module | None]]:
    """Yield the path and module (None for an absent component) that `segments` lead to.

    Args:
        module: Where to begin.
        segments: What is left of a path pattern, split at its dots.
        path: Names that led to `module`.
    """
    segment, rest = segments[0], segments[1:]
    for name, child in _children(module, segment):
        if rest and child is not None:
            yield from _walk(child, rest, (*path, name))
        elif not rest:
            yield (*path, name), child


def _children(module: nn.Module, segment: str) -> Iterator[tuple[str, nn.Module | None]]:
    """Yield the children that one segment of a pattern names, with their names."""
    # named_children() hides a module that is registered twice
    own = module._modules  # pyright: ignore[reportPrivateUsage]
    registered = [(name, child) for name, child in own.items() if fnmatchcase(name, segment)]
    yield from registered
    if not registered and getattr(module, segment, _MISSING) is None:
        yield segment, None


def _block_index(path: Sequence[str], wildcard: int | None) -> int:
    """Return the number at the wildcard's place, else the first number in the path, else 0."""
    if wildcard is not None and path[wildcard].isdigit():
        return int(path[wildcard])
    return next((int(part) for part in path if part.isdigit()), 0)


def _refuse_shared_modules(model: nn.Module, sites: Sequence[Site], adapter: str) -> None:
    """Raise `AdapterError` if two paths lead to one module, or one path is found twice."""
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
