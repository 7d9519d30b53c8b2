"""An adapter as a file has it: where the sites are in a model that no package knows."""

from typing import Literal, Self

from smoothcache_core.adapters.late import LateAdapter
from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern
from smoothcache_core.adapters.sites import Adapter
from smoothcache_core.schedule.values import Flag, Name, Text, Value


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


class AdapterData(Value):
    """A `PatternAdapter` without its name, which stands beside it in the fingerprint.

    Attributes:
        latent: Name of the argument that holds the noisy latent.
        timestep: Name of the argument that holds the timestep.
        guidance: Which half of a batch is conditional, if the adapter says it.
        patterns: Where the sites are.
    """

    latent: Name
    timestep: Name
    guidance: Literal["cond-first", "uncond-first"] | None = None
    patterns: tuple[PatternData, ...] = ()

    @classmethod
    def of_adapter(cls, adapter: Adapter) -> Self | None:
        """Return what a file says of an adapter; None if it need not, or cannot.

        An adapter that names model classes is found again by them. One that is more than its data,
        and one of spans, must be given again.

        Args:
            adapter: Any adapter; one that is to be found is found now.
        """
        known = adapter.found if isinstance(adapter, LateAdapter) else adapter
        if type(known) is not PatternAdapter or known.classes:
            return None
        patterns = [each for each in known.patterns if isinstance(each, SitePattern)]
        if len(patterns) < len(known.patterns):
            return None
        return cls(
            latent=known.latent,
            timestep=known.timestep,
            guidance=known.guidance,
            patterns=tuple(PatternData(**vars(each)) for each in patterns),
        )

    def adapter(self, name: str) -> PatternAdapter:
        """Return the adapter.

        Args:
            name: Its name, as the fingerprint has it.
        """
        return PatternAdapter(
            name=name,
            patterns=tuple(SitePattern(**dict(each)) for each in self.patterns),
            latent=self.latent,
            timestep=self.timestep,
            guidance=self.guidance,
        )
