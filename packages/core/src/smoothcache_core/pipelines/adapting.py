"""Which adapter a denoiser of a pipeline has: what the user says, a known one, or one to find."""

from collections.abc import Iterable

from torch import nn

from smoothcache_core.adapters.compiled import denoiser
from smoothcache_core.adapters.patterns import PatternAdapter
from smoothcache_core.adapters.search import find_adapter, known_adapter
from smoothcache_core.adapters.signature import whole_evaluations
from smoothcache_core.adapters.sites import DENOISER, GUIDANCE, Adapter
from smoothcache_core.errors import AdapterError
from smoothcache_core.relay import members_of
from smoothcache_core.schedule.schedule import Schedule

AUTO, STRUCTURE, WHOLE = "auto", "structure", "whole"
"""What a user may say beside the name of a known adapter: what is known of the class, and else what
is found by structure; what is found by structure; none but whole evaluations."""


def chosen_adapter(
    model: nn.Module, choice: Adapter | str | None, known: Iterable[PatternAdapter]
) -> Adapter | None:
    """Return the adapter of a denoiser; None if it is to be found by structure.

    Args:
        model: The denoiser that the sampler calls, compiled or not; or a `Relay`.
        choice: An adapter; the name of a known one, `"auto"`, `"structure"` or `"whole"`; None is
            `"auto"`.
        known: The adapters of a package.

    Raises:
        AdapterError: No adapter has the name, or latent and timestep of the model are not known.
    """
    first, *_ = members_of(model)
    if choice is None or choice == AUTO:
        return known_adapter(first, known)
    if not isinstance(choice, str):
        return choice
    if choice in (STRUCTURE, WHOLE):
        return None if choice == STRUCTURE else whole_evaluations(first)
    by_name = {adapter.name: adapter for adapter in known}
    if choice not in by_name:
        raise AdapterError(
            f"there is no adapter {choice!r}; give 'auto', 'structure', 'whole', or one of "
            f"{sorted(by_name)}"
        )
    return by_name[choice]


def adapter_for_schedule(
    model: nn.Module,
    choice: Adapter | str | None,
    known: Iterable[PatternAdapter],
    schedule: Schedule,
) -> Adapter:
    """Return the adapter by which a schedule is followed, without running anything.

    In this order: what the user says; the adapter that the schedule records; that of a known class;
    whole evaluations, if the schedule names no sites.

    Args:
        model: The denoiser that the sampler calls, compiled or not; or a `Relay`.
        choice: The adapter's name or the adapter, as for `chosen_adapter`.
        known: The adapters of a package.
        schedule: What is to be followed.

    Raises:
        AdapterError: No adapter is known by which the schedule's sites could be found.
    """
    known, recorded = list(known), schedule.fingerprint.recorded_adapter
    if choice in (None, AUTO, STRUCTURE) and recorded is not None:
        return recorded
    found = chosen_adapter(model, choice, known)
    if found is not None:
        return found
    if {*schedule.rows, *schedule.fills} <= {DENOISER.kind, GUIDANCE.kind}:
        return whole_evaluations(members_of(model)[0])
    kind, first = type(denoiser(members_of(model)[0])).__name__, next(iter(schedule.rows))
    raise AdapterError(
        f"this schedule names parts of the {kind}, {first!r} for example, and does not say how "
        "they are found, nor is an adapter known for the class; give one (`adapter=`), or plan "
        "from a calibration of this model"
    )


def adapter_or_whole(model: nn.Module, known: Iterable[PatternAdapter]) -> PatternAdapter:
    """Return the adapter of a known class; of any other, that for whole evaluations.

    Args:
        model: The denoiser that the sampler calls, compiled or not.
        known: The adapters of a package.

    Raises:
        AdapterError: The model is none that is known, and latent and timestep are not among the
            arguments of its `forward`; or a denoiser that is known is inside of it.
    """
    known = list(known)
    found = known_adapter(model, known)
    if found is not None:
        return found
    inside = [path for path, each in model.named_modules() if path and known_adapter(each, known)]
    if inside:
        raise AdapterError(
            f"no adapter for {type(denoiser(model)).__name__!r}, but for what is inside of it at "
            f"{inside[0]!r}; give the denoiser that the sampler calls, or say what to do with this "
            "one by whole_evaluations(model)"
        )
    try:
        return whole_evaluations(model)
    except AdapterError:
        return find_adapter(model, known)  # which says what there is
