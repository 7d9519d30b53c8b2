"""An adapter as a file has it: where the sites are in a model that no package knows."""

from typing import Any, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer

from smoothcache_core.adapters.late import LateAdapter
from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern, SpanPattern
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.schedule.values import Flag, Integer, Name, Text, Value


class PatternData(Value):
    """A path pattern; see `SitePattern`.

    Attributes:
        path: Module path with wildcards.
        kind: Kind of the sites that it finds.
        target: What is cached of them.
        inputs: For a delta, names of the arguments that correspond to the outputs.
        optional: Whether some models have nothing there.
    """

    path: Name
    kind: Name
    target: Literal["output", "delta"] = "output"
    inputs: tuple[Text, ...] = ()
    optional: Flag = False


class SpanData(Value):
    """A run of blocks; see `SpanPattern`.

    Attributes:
        path: Path of the list of blocks.
        kind: Kind of the site.
        first: Index of the first block.
        last: Index of the last block.
        inputs: Names of the arguments that correspond to the outputs.
        second: Path of the list that takes turns with it; empty if none does.
    """

    path: Name
    kind: Name
    first: Integer
    last: Integer
    inputs: tuple[Text, ...] = ()
    second: Text = ""


class AdapterData(Value):
    """A `PatternAdapter` without its name, which stands beside it in the fingerprint.

    Attributes:
        latent: Name of the argument that holds the noisy latent, or names of several.
        timestep: Name of the argument that holds the timestep.
        guidance: Which half of a batch is conditional, if the adapter says it.
        patterns: Where the sites are.
        spans: Which runs of blocks are sites, if those are.
    """

    latent: Name | tuple[Name, ...]
    timestep: Name
    guidance: Literal["cond-first", "uncond-first"] | None = None
    patterns: tuple[PatternData, ...] = ()
    spans: tuple[SpanData, ...] = ()

    @model_serializer(mode="wrap")
    def _without_spans(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = serialise(self)
        return content if self.spans else {k: v for k, v in content.items() if k != "spans"}

    @classmethod
    def of_adapter(cls, adapter: Adapter) -> Self | None:
        """Return what a file says of an adapter; None if it need not, or cannot.

        An adapter that names model classes is found again by them. One that is more than its data
        must be given again.

        Args:
            adapter: Any adapter; one that is to be found is found now.
        """
        known = adapter.found if isinstance(adapter, LateAdapter) else adapter
        if type(known) is not PatternAdapter or known.classes:
            return None
        patterns = [each for each in known.patterns if isinstance(each, SitePattern)]
        spans = [each for each in known.patterns if isinstance(each, SpanPattern)]
        return cls(
            latent=known.latent,
            timestep=known.timestep,
            guidance=known.guidance,
            patterns=tuple(PatternData(**vars(each)) for each in patterns),
            spans=tuple(SpanData(**vars(each)) for each in spans),
        )

    def adapter(self, name: str) -> PatternAdapter:
        """Return the adapter.

        Args:
            name: Its name, as the fingerprint has it.
        """
        return PatternAdapter(
            name=name,
            patterns=(
                *(SitePattern(**dict(each)) for each in self.patterns),
                *(SpanPattern(**dict(each)) for each in self.spans),
            ),
            latent=self.latent,
            timestep=self.timestep,
            guidance=self.guidance,
        )
