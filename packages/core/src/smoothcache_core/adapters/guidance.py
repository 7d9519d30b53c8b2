"""Which conditioning pass of an evaluation is the conditional one."""

from collections.abc import Sequence

from smoothcache_core.adapters.sites import Adapter


def conditional_part(adapter: Adapter, branches: Sequence[str]) -> int | None:
    """Return which conditioning pass is the conditional one, if that can be determined.

    Returns:
        Its index among the passes of an evaluation; None if it cannot be determined.

    Args:
        adapter: Says which half is conditional where guidance is batched.
        branches: Names of passes that are calls of their own, in their order.
    """
    if len(branches) == 2:
        named = [is_unconditional(branch) for branch in branches]
        return named.index(False) if any(named) and not all(named) else None
    return {"cond-first": 0, "uncond-first": 1, None: None}[adapter.guidance]


def is_unconditional(branch: str) -> bool:
    """Return whether a conditioning pass of this name is the unconditional (or negative) one."""
    return "uncond" in branch or "neg" in branch


def is_separate(branch: str, branches: Sequence[str]) -> bool:
    """Return whether the passes of guidance are calls of their own, not halves of one batch.

    Args:
        branch: Name of the conditioning pass under way; empty if it has none.
        branches: Names of the passes that the user gave, empty if none.
    """
    joint = is_unconditional(branch) and "cond" in branch.replace("uncond", "")
    return bool(branches) or bool(branch and not joint)  # one call may be named "cond_uncond"
