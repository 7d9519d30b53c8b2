"""Path patterns of sites that were found, such that they find these and nothing else."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from torch import nn

from smoothcache_core.adapters.patterns import PatternAdapter, SitePattern
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE
from smoothcache_core.discovering.layout import NUMBER, general
from smoothcache_core.discovering.sites import FoundSite
from smoothcache_core.errors import AdapterError


def patterns_of(model: nn.Module, sites: Sequence[FoundSite]) -> tuple[SitePattern, ...]:
    """Return patterns for sites, in which numbers are wildcards wherever that finds the same sites.

    Args:
        model: The denoiser, not its compiled wrapper.
        sites: What the patterns must find.
    """
    groups: dict[str, list[FoundSite]] = defaultdict(list)
    for site in sites:
        groups[general(site.path)].append(site)
    kinds = _kinds(list(groups))
    return tuple(
        pattern
        for place, group in groups.items()
        for pattern in _patterns(model, place, kinds[place], group)
    )


def _patterns(
    model: nn.Module, place: str, kind: str, group: Sequence[FoundSite]
) -> list[SitePattern]:
    """Return one pattern for a group of sites of one kind, or several that find nothing else."""
    told = {_told(model, site) for site in group}
    if len(told) == 1 and _found(model, place) == {site.path for site in group}:
        return [SitePattern(place, kind, group[0].target, group[0].inputs)]
    by_end: dict[str, list[FoundSite]] = defaultdict(list)
    for site in group:
        by_end[_last_number_kept(site.path)].append(site)
    if len(by_end) == 1 or place.count("*") < 2:
        return [SitePattern(s.path, kind, s.target, s.inputs) for s in group]
    made = []
    for end, part in by_end.items():
        made += _patterns(model, end, f"{kind}_{_last_number(end)}", part)
    return made


def _told(model: nn.Module, site: FoundSite) -> tuple[object, ...]:
    """Return what sites of one pattern have in common."""
    return site.target, site.inputs, type(model.get_submodule(site.path))


def _last_number_kept(path: str) -> str:
    *_, last = NUMBER.finditer(path)
    return general(path[: last.start()]) + path[last.start() :]


def _last_number(path: str) -> str:
    return NUMBER.findall(path)[-1]


def _found(model: nn.Module, pattern: str) -> set[str]:
    """Return the paths of the modules that a pattern finds."""
    known = PatternAdapter(name="", patterns=(SitePattern(pattern, ""),))
    try:
        return {site.path for site in known.sites(model)}
    except AdapterError:  # it leads to modules that are shared
        return set()


def _kinds(patterns: Sequence[str]) -> Mapping[str, str]:
    """Return the kind of each pattern: the last name in it, and of those before what it needs."""
    names = {pattern: [n for n in pattern.split(".") if n != "*"] for pattern in patterns}
    known = Counter(each for own in names.values() for each in set(_forms(own)))
    known.update((DENOISER.kind, GUIDANCE.kind))
    return {
        pattern: next((each for each in _forms(own) if known[each] == 1), "_".join(own))
        for pattern, own in names.items()
    }


def _forms(names: Sequence[str]) -> list[str]:
    """Return what a kind may be called, by the names in its path, the shortest first."""
    first, *_, last = names[0], names[-1]
    before = names[-2:-1]
    return [
        "_".join(each) for each in ([last], [*before, last], [first, last], [first, *before, last])
    ]
