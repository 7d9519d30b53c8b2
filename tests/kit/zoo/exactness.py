"""Plain reuse in a pipeline, said a second time without the library, and compared bit by bit.

The reference counts the calls of the denoiser and nothing else: the passes of an evaluation come in
the same order in all of them. So it tells conditional from unconditional passes, one evaluation
from the next and one run from the other in another way than the library does.
"""

import inspect
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from kit.hook_reference import leaves
from kit.zoo.entry import Entry
from smoothcache_core import Calibration, Sampler, Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.patching import replaced
from smoothcache_core.pipelines import cached_sampler
from smoothcache_core.relay import members_of
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

SEED = 40
PATTERN = (1, 1, 0, 0, 1, 0, 1, 1, 0, 1)
"""What is computed of ten evaluations; repeated where there are more."""


class Place:
    """Which evaluation of a run is under way, and which pass, by counting calls of the denoiser.

    Attributes:
        passes: Calls of an evaluation.
        calls: Calls so far.
    """

    def __init__(self, passes: int) -> None:
        self.passes, self.calls, self.inner = passes, 0, Counter[str]()

    def next(self, *_: object) -> None:
        self.calls, self.inner = self.calls + 1, Counter()

    @property
    def evaluation(self) -> int:
        return (self.calls - 1) // self.passes

    @property
    def which(self) -> int:
        return (self.calls - 1) % self.passes


def row_of(known: Calibration) -> tuple[int, ...]:
    return tuple(itertools.islice(itertools.cycle(PATTERN), known.evaluations))


def passes_of(known: Calibration) -> int:
    return len([branch for branch in known.branches if branch]) or 1


class ReusedSite:
    """A hook that gives what a site gave at the last computed evaluation of the same pass.

    Attributes:
        computed: Calls of the denoiser in which the site was computed.
    """

    def __init__(self, site: Site, member: int, place: Place, row: Sequence[int]) -> None:
        self.site, self.member, self.place, self.row = site, member, place, row
        self.kept: dict[tuple[int, int], tuple[int, Any]] = {}
        self.computed = 0

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        place, name = self.place, f"{self.member}:{self.site.path}"
        call, place.inner[name] = place.inner[name], place.inner[name] + 1
        key = place.which, call
        single = isinstance(output, Tensor)
        outputs = (output,) if single else output
        inputs = self._inputs(module, args, kwargs, outputs)
        if self.row[place.evaluation] or key not in self.kept:
            self.computed += not call
            deltas = tuple(_minus(o, i) for o, i in zip(outputs, inputs, strict=True))
            self.kept[key] = place.evaluation, deltas
            return output
        given = tuple(_plus(i, k) for i, k in zip(inputs, self.kept[key][1], strict=True))
        return given[0] if single else given

    def _inputs(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any
    ) -> tuple[Any, ...]:
        if self.site.target == "output":
            return tuple(None for _ in outputs)
        bound = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        return tuple(bound[name] for name in self.site.inputs)


def _minus(output: Any, given: Any) -> Any:
    return output if given is None else output - given


def _plus(given: Any, delta: Any) -> Any:
    return delta if given is None else given + delta


@contextmanager
def sites_reused(sampler: Sampler, known: Calibration) -> Generator[list[ReusedSite]]:
    """Reuse what the sites give, by hooks."""
    place, row = Place(passes_of(known)), row_of(known)
    with ExitStack() as stack:
        made: list[ReusedSite] = []
        for number, member in enumerate(members_of(sampler.model)):
            handles = [member.register_forward_pre_hook(place.next)]
            for site in known.sites:
                hook = ReusedSite(site, number, place, row)
                made.append(hook)
                module = member.get_submodule(site.path)
                handles.append(module.register_forward_hook(hook, with_kwargs=True))
            for handle in handles:
                stack.callback(handle.remove)
        yield made


@contextmanager
def evaluations_reused(sampler: Sampler, known: Calibration) -> Generator[None]:
    """Reuse what the denoiser gives, by answering its calls."""
    place, row = Place(passes_of(known)), row_of(known)
    kept: dict[int, Any] = {}

    def answering(forward: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            place.next()
            if row[place.evaluation]:
                kept[place.which] = tree_map_only(Tensor, torch.clone, forward(*args, **kwargs))
            return tree_map_only(Tensor, torch.clone, kept[place.which])

        return answer

    with ExitStack() as stack:
        for member in members_of(sampler.model):
            stack.enter_context(replaced(member, "forward", answering(member.forward)))
        yield


@contextmanager
def calls_counted(sampler: Sampler, known: Calibration) -> Generator[Counter[str]]:
    """Count the calls of the innermost modules of every site, by member and path."""
    calls: Counter[str] = Counter()

    def counter(name: str) -> Callable[..., None]:
        return lambda *_: calls.update([name])

    with ExitStack() as stack:
        for number, member in enumerate(members_of(sampler.model)):
            for site in known.sites:
                for leaf in leaves(member.get_submodule(site.path)):
                    handle = leaf.register_forward_pre_hook(counter(f"{number}:{site.path}"))
                    stack.callback(handle.remove)
        yield calls


def schedule_of(known: Calibration, names: Sequence[str]) -> Schedule:
    return Schedule(
        evaluations=known.evaluations,
        rows=dict.fromkeys(names, row_of(known)),
        fingerprint=known.fingerprint,
        cost=known.cost,
    )


def check_sites(sampler: Sampler, known: Calibration) -> None:
    """Sites give what the reference gives, and are called as often as it computes them."""
    with calls_counted(sampler, known) as plain:
        sampler.final_latent(SEED)
    with sites_reused(sampler, known) as hooks:
        expected = sampler.final_latent(SEED)
    cached = cached_sampler(sampler, schedule_of(known, known.kinds))
    with cached as stats, calls_counted(sampler, known) as calls:
        found, again = sampler.final_latent(SEED), sampler.final_latent(SEED)
    assert torch.equal(found, expected), "sites are reused otherwise than by the reference"
    assert torch.equal(found, again), "a second run differs"
    assert stats.runs == 2
    total: dict[str, int] = defaultdict(int)
    for hook in hooks:
        total[f"{hook.member}:{hook.site.path}"] = hook.computed
    every = _denoiser_calls(sampler, known)
    for hook in hooks:
        name = f"{hook.member}:{hook.site.path}"
        assert calls[name] * every[name] == 2 * plain[name] * total[name], name


def _denoiser_calls(sampler: Sampler, known: Calibration) -> Counter[str]:
    """Return in how many calls of the denoiser each site is called in a plain run."""
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        for number, member in enumerate(members_of(sampler.model)):
            seen: set[str] = set()
            handle = member.register_forward_pre_hook(lambda *_, seen=seen: seen.clear())
            stack.callback(handle.remove)
            for site in known.sites:
                name = f"{number}:{site.path}"

                def note(*_: object, name: str = name, seen: set[str] = seen) -> None:
                    counts[name] += name not in seen
                    seen.add(name)

                module = member.get_submodule(site.path)
                stack.callback(module.register_forward_pre_hook(note).remove)
        sampler.final_latent(SEED)
    return counts


def check_evaluations(sampler: Sampler, known: Calibration) -> None:
    """Skipped evaluations give what the reference gives."""
    with evaluations_reused(sampler, known):
        expected = sampler.final_latent(SEED)
    with cached_sampler(sampler, schedule_of(known, ["denoiser"])) as stats:
        found, again = sampler.final_latent(SEED), sampler.final_latent(SEED)
    assert torch.equal(found, expected), "evaluations are reused otherwise than by the reference"
    assert torch.equal(found, again), "a second run differs"
    assert not stats.recomputed


def check_all_computed(sampler: Sampler, known: Calibration) -> None:
    """A schedule that computes everything changes no bit, whatever it names."""
    plain = sampler.final_latent(SEED)
    for names in (known.kinds, ["denoiser", "guidance"]):
        rows = dict.fromkeys(names, (1,) * known.evaluations)
        whole = Schedule(evaluations=known.evaluations, rows=rows, fingerprint=known.fingerprint)
        with cached_sampler(sampler, whole):
            found = sampler.final_latent(SEED)
        assert torch.equal(found, plain), f"computing all {names} changes bits"
    assert torch.equal(sampler.final_latent(SEED), plain), "the model was not restored"


def check_leaks(entry: Entry, pipe: Any, sampler: Sampler, known: Calibration) -> None:
    """Runs with another image, number of frames or size do not see each other."""
    changes = [{}, *entry.others(), {}]
    for names in (known.kinds, ["denoiser"]):
        schedule = schedule_of(known, names)
        alone = []
        for change in changes:
            with cached_sampler(sampler, schedule):
                alone.append(entry.sample(pipe, SEED, **change))
        with cached_sampler(sampler, schedule):
            together = [entry.sample(pipe, SEED, **change) for change in changes]
        for number, (one, other) in enumerate(zip(alone, together, strict=True)):
            assert torch.equal(one, other), f"run {number} of {names} saw another run"
        assert not any(_same(alone[0], other) for other in alone[1:-1]), "the other run is the same"


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)
