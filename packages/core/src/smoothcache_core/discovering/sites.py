"""Choosing sites among the modules that were watched, by what they did."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from smoothcache_core.adapters.sites import Target
from smoothcache_core.discovering.layout import Layout, general, parents
from smoothcache_core.discovering.trace import CONTINUES, Seen

COVERED = 0.8
"""Share of a block's multiply-accumulates that its sites must do; below, the block is the site.

In published models attention and feed forward do more than nine tenths, where they are modules."""

_WRAPS = 0.5  # of modules that add to their input themselves; attentions do not come near it

_LAYER = re.compile(r"attn|attention|mlp|ffn?|feed_?forward", re.IGNORECASE)
"""Names by which a single layer is taken for an attention or a feed forward of a small model."""

_MODULATION = re.compile(r"norm|ada_?ln|modulation", re.IGNORECASE)
"""Names of what modulates: norms that have layers of their own, which see no tokens."""

_NOT_CALLED = "it is never called as a module"
_SHARED = "it is one module with several paths"


@dataclass(frozen=True, kw_only=True)
class FoundSite:
    """A module that was chosen as a site.

    Attributes:
        path: Module path inside the denoiser.
        target: What is kept of it.
        inputs: For a delta, names of the arguments that the outputs continue.
        macs: Multiply-accumulates of one evaluation.
    """

    path: str
    target: Target
    inputs: tuple[str, ...]
    macs: int


class Choice:
    """The sites of one denoiser, chosen block by block.

    Args:
        layout: The modules that were watched.
        seen: What those that were called did.

    Attributes:
        sites: The sites, in the order of their calls.
        blocks: The outermost blocks whose deltas can be kept, likewise.
        left_out: Why modules that may look like sites are none, by their paths.
    """

    def __init__(self, layout: Layout, seen: Mapping[str, Seen]) -> None:
        self._layout, self._seen = layout, seen
        self.left_out = {
            path: reason
            for path in layout.modules
            if path not in layout.layers and (reason := self._unfit(path))
        }
        continuing = {path.rpartition(".")[0] for path in layout.listed if self._continues(path)}
        listed = [path for path in layout.modules if path in layout.listed]
        blocks = [path for path in listed if path.rpartition(".")[0] in continuing]
        self._blocks = frozenset(filter(self._is_block, blocks))
        self._likeness = _mean_likeness(seen)
        outermost = [path for path in self._blocks if not self._outer_block(path)]
        found = [site for path in outermost for site in self._of_block(path)]
        self.sites = sorted(found or self._alone(), key=lambda site: seen[site.path].order)
        deltas = (self._site(each, delta=True) for path in outermost for each in self._deltas(path))
        self.blocks = sorted(deltas, key=lambda site: seen[site.path].order)

    # ------------------------------------------------------------------ blocks

    def _is_block(self, path: str) -> bool:
        return path not in self._layout.layers and self._fits(path)

    def _continues(self, path: str) -> bool:
        """Whether a module continues what it is given, as the blocks of a residual network do."""
        return self._is_block(path) and self._seen[path].likeness > CONTINUES

    def _outer_block(self, path: str) -> str | None:
        return next((each for each in parents(path) if each in self._blocks), None)

    def _of_block(self, block: str) -> list[FoundSite]:
        """Return the sites of a block: those inside, or the block itself if they do too little."""
        nested = [path for path in self._blocks if self._outer_block(path) == block]
        deeper = [site for path in nested for site in self._of_block(path)]
        components = list(self._components(block, nested))
        inner = [path for path in components if self._wraps_residual(path)]
        deeper += [site for path in inner for site in self._of_block(path)]
        parts = [self._site(path) for path in components if path not in inner]
        done = sum(site.macs for site in parts)
        if deeper or done >= COVERED * self._macs_of_tokens(block) or not self._seen[block].inputs:
            return [*deeper, *parts]
        for site in parts:
            self.left_out[site.path] = f"the sites of {block!r} do too little, so it is one itself"
        return [self._site(block, delta=True)]

    def _deltas(self, block: str) -> list[str]:
        """Return the paths of the blocks whose deltas can be kept: it, or those inside."""
        if self._seen[block].inputs:
            return [block]
        nested = [path for path in self._blocks if self._outer_block(path) == block]
        return [each for path in nested for each in self._deltas(path)]

    def _macs_of_tokens(self, block: str) -> int:
        """Return the multiply-accumulates of a block without those of its modulation."""
        inside = [p for p in self._seen if p.startswith(f"{block}.") and self._modulates(p)]
        outermost = [p for p in inside if not any(p.startswith(f"{each}.") for each in inside)]
        return self._seen[block].macs - sum(self._seen[path].macs for path in outermost)

    def _components(self, block: str, nested: list[str]) -> Iterator[str]:
        """Yield the outermost modules of a block that may be sites, beside blocks inside it."""
        own = self._seen[block].sizes
        sizes = {*own, sum(own)}  # image and text may be one sequence inside
        found: set[str] = set()
        for path in self._layout.modules:
            above = set(parents(path))
            if block not in above or above & {*found, *nested} or path in nested:
                continue
            holds = any(each.startswith(f"{path}.") for each in nested)
            if not holds and self._is_component(path) and sizes & set(self._seen[path].sizes):
                found.add(path)
                yield path

    def _is_component(self, path: str) -> bool:
        """Whether a module is no single layer, or is named like an attention or feed forward."""
        if not self._fits(path) or self._seen[path].in_place or self._modulates(path):
            return False
        return path not in self._layout.layers or bool(_LAYER.search(path.rpartition(".")[2]))

    def _modulates(self, path: str) -> bool:
        kind = type(self._layout.modules[path]).__name__
        return bool(_MODULATION.search(f"{path.rpartition('.')[2]} {kind}"))

    def _wraps_residual(self, path: str) -> bool:
        """Whether all modules at this place of their blocks continue what they are given."""
        return self._likeness[general(path)] > _WRAPS

    # ------------------------------------------------------------------ without blocks

    def _alone(self) -> list[FoundSite]:
        """Return the outermost listed modules of a denoiser that has no blocks."""
        found: list[str] = []
        for path in self._layout.modules:
            listed = path in self._layout.listed and self._fits(path)
            if listed and not self._seen[path].in_place and not set(parents(path)) & set(found):
                found.append(path)
        return [self._site(path) for path in found if self._seen[path].keeps_shape]

    # ------------------------------------------------------------------ modules

    def _site(self, path: str, *, delta: bool = False) -> FoundSite:
        seen = self._seen[path]
        inputs = seen.inputs if delta else ()
        target: Target = "delta" if delta else "output"
        return FoundSite(path=path, target=target, inputs=inputs, macs=seen.macs)

    def _fits(self, path: str) -> bool:
        return not self._unfit(path)

    def _unfit(self, path: str) -> str:
        """Return why a module cannot be a site, whatever it is; empty if it can."""
        seen = self._seen.get(path)
        if path in self._layout.shared:
            return _SHARED
        if seen is None:
            return _NOT_CALLED
        if len(set(seen.calls)) > 1:
            return f"evaluations call it differently often, {seen.calls} times"
        if not seen.tensors:
            return "it gives something else than a tensor or a tuple of tensors"
        if not seen.macs:
            return "it does no multiply-accumulates"
        return "" if seen.changes else "it does not change from evaluation to evaluation"


def _mean_likeness(seen: Mapping[str, Seen]) -> dict[str, float]:
    """Return the mean likeness of the modules at each place of their blocks."""
    groups: dict[str, list[float]] = defaultdict(list)
    for path, each in seen.items():
        groups[general(path)].append(each.likeness)
    return {place: sum(group) / len(group) for place, group in groups.items()}
