"""Ranks that hold one denoiser in shards: they call it together, so they must skip alike."""

import hashlib

from torch import distributed, nn

from smoothcache_core.errors import AttachError
from smoothcache_core.schedule.schedule import Schedule


def among_ranks() -> bool:
    """Return whether this process is one of several of `torch.distributed`."""
    found = distributed.is_available() and distributed.is_initialized()
    return found and distributed.get_world_size() > 1


def refuse_unlike(model: nn.Module, schedule: Schedule) -> None:
    """Compare the schedule with that of the ranks that hold the other shards of a model.

    A rank that skips what another one computes would leave it waiting for its shards for ever. So
    every rank calls this, as it does `attach`; models that are not in shards are not looked at.

    Args:
        model: The denoiser, not its compiled wrapper.
        schedule: What this rank is to follow.

    Raises:
        AttachError: A rank has another schedule; raised on all.
    """
    if not among_ranks():
        return
    mine = hashlib.sha256(schedule.model_dump_json().encode()).hexdigest()
    for group in _groups(model):
        found = [""] * distributed.get_world_size(group)
        distributed.all_gather_object(found, mine, group=group)
        if len(set(found)) > 1:
            raise AttachError(
                f"this {type(model).__name__} is in shards on {len(found)} ranks, and they have "
                "different schedules: what one skips another would wait for. Plan once, and give "
                "all ranks the same file"
            )


def _groups(model: nn.Module) -> list[distributed.ProcessGroup]:
    """Return the groups of ranks that hold the shards; none if the model is whole on each."""
    from torch.distributed.tensor import DTensor  # it takes a while to load

    meshes = {each.device_mesh for each in model.parameters() if isinstance(each, DTensor)}
    groups = [group for mesh in meshes for group in mesh.get_all_groups()]
    return sorted(groups, key=lambda group: group.group_name)
