"""Trained routers of Learning-to-Cache, HarmoniCa and their U-ViT variant, as schedules.

A checkpoint holds one vector for each step, `"i.prob"`: its sigmoid says how much each sub-layer is
needed, attention and feed-forward of block 0, those of block 1, and so on. Above a threshold it is
computed, else its last output stands in. Sources: Learning-to-Cache (arXiv 2406.01733), HarmoniCa
(arXiv 2410.01723), and their public repositories.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from smoothcache_core.errors import ScheduleError
from smoothcache_core.files import reason_of
from smoothcache_core.schedule.provenance import Provenance
from smoothcache_core.schedule.schedule import Schedule

Policy = Literal["all", "alternate", "grid"]
"""At which evaluations a router decides; at all others everything is computed.

`"all"`: at all but the first (HarmoniCa). `"alternate"`: where the router's number is even
(Learning-to-Cache, which computes every other evaluation in full). `"grid"`: U-ViT's, whose solver
makes two evaluations a step: at the first of every step but the first, by the step's number.
"""

THRESHOLD = 0.1
"""What sub-layers that are computed must exceed, as both papers sample."""

_KEY = re.compile(r"(\d+)\.prob")

_MOST = 2**26  # bytes of a checkpoint: thousand steps of thousand sub-layers are 4 MB, with Adam 12


def load_router(
    path: str | Path,
    *,
    threshold: float = THRESHOLD,
    policy: Policy = "all",
    components: Sequence[str] = ("attn", "mlp"),
) -> Schedule:
    """Read a trained router as a schedule.

    Tensors are all that is read: code in the file is never run.

    Example::

        schedule = load_router("0020000.pt", policy="all", components=("attn1", "ff"))

    Args:
        path: A checkpoint as these projects save it, or only the routers' state dict.
        threshold: What the sigmoid of a computed sub-layer exceeds, in [0, 1).
        policy: At which evaluations routers decide; see `Policy`.
        components: What the sub-layers of a block are called in the model that is to be cached, in
            their order: `("attn1", "ff")` in diffusers' DiT.

    Raises:
        ScheduleError: The file is missing, is no such checkpoint, or holds more than tensors; or
            the threshold, the policy or the number of sub-layers is impossible.
    """
    if policy not in get_args(Policy):
        raise ScheduleError(f"policy is one of {list(get_args(Policy))}, got {policy!r}")
    if not 0.0 <= threshold < 1.0:
        raise ScheduleError(f"threshold is at least 0 and below 1, got {threshold}")
    if not components:
        raise ScheduleError("name the components of a block, such as ('attn', 'mlp')")
    needs = routers_in(path).sigmoid().tolist()
    computed = [[need > threshold for need in row] for row in needs]
    if len(computed[0]) % len(components):
        raise ScheduleError(
            f"{str(path)!r} has {len(computed[0])} sub-layers, which blocks of {list(components)} "
            "do not divide"
        )
    settings = {"threshold": threshold, "policy": policy, "file": Path(path).name}
    return Schedule(
        evaluations=len(computed),
        rows=_rows(computed, policy, components),
        source=Provenance(name="router", settings=settings),
    )


def routers_in(path: str | Path) -> Tensor:
    """Return the logits that a checkpoint of routers holds, float64 (routers, sub-layers).

    Args:
        path: A checkpoint as these projects save it, or only the routers' state dict.

    Raises:
        ScheduleError: The file is missing, is no such checkpoint, or holds more than tensors.
    """
    return _logits(_routers(path), str(path))


def _routers(path: str | Path) -> Mapping[str, Any]:
    """Return the routers' state dict that a file holds."""
    place = Path(path)
    try:
        if place.stat().st_size > _MOST:
            raise ScheduleError(f"{str(path)!r} is no router: it is larger than {_MOST} bytes")
        with torch.serialization.safe_globals([argparse.Namespace]):
            saved = torch.load(place, map_location="cpu", weights_only=True)
    except ScheduleError:
        raise
    except OSError as error:
        raise ScheduleError(f"{str(path)!r} cannot be read: {reason_of(error)}") from None
    except Exception as error:  # torch raises what the bytes lead to
        raise ScheduleError(
            f"{str(path)!r} is no checkpoint of tensors: {str(error).splitlines()[0][:120]}"
        ) from None
    routers = saved.get("routers", saved) if isinstance(saved, Mapping) else None
    if not isinstance(routers, Mapping):
        raise ScheduleError(f"{str(path)!r} holds a {type(saved).__name__}, and no routers")
    return routers


def _logits(routers: Mapping[str, Any], path: str) -> Tensor:
    """Return the logits of every sub-layer, by number of the router."""
    named = {str(key): _KEY.fullmatch(str(key)) for key in routers}
    wrong = [key for key, match in named.items() if match is None]
    numbers = sorted(int(match[1]) for match in named.values() if match is not None)
    if wrong or not numbers:
        found = f"its keys are {wrong[:3]}" if wrong else "it is empty"
        raise ScheduleError(f"{path!r} is no router, whose keys are '0.prob', '1.prob': {found}")
    if numbers != list(range(len(numbers))):
        raise ScheduleError(f"{path!r}: routers are numbered from 0, got {numbers[:4]} ...")
    vectors = [routers[f"{number}.prob"] for number in numbers]
    shapes = {tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for v in vectors}
    if len(shapes) != 1 or not isinstance(vectors[0], Tensor) or vectors[0].ndim != 1:
        raise ScheduleError(
            f"{path!r}: routers are vectors of one length, got {sorted(shapes, key=str)}"
        )
    values = torch.stack([vector.double() for vector in vectors])
    if not torch.isfinite(values).all():
        raise ScheduleError(f"{path!r}: a router holds NaN or infinity")
    return values


def _rows(
    computed: Sequence[Sequence[bool]], policy: Policy, components: Sequence[str]
) -> dict[str, list[int]]:
    """Return rows by component and block, from the first evaluation to the last."""
    total = len(computed)
    places = [router_at(evaluation, total, policy) for evaluation in range(total)]
    everything = [True] * len(computed[0])
    decided = [everything if place is None else computed[place] for place in places]
    return {
        f"{components[slot % len(components)]}-{slot // len(components)}": [
            int(evaluation[slot]) for evaluation in decided
        ]
        for slot in range(len(everything))
    }


def router_at(evaluation: int, total: int, policy: Policy) -> int | None:
    """Return the number of the router that decides at an evaluation; None if all is computed.

    Args:
        evaluation: Index in the run, from 0.
        total: Evaluations of the run, and routers.
        policy: At which evaluations routers decide.
    """
    if evaluation == 0:
        return None
    if policy == "grid":  # evaluations 2 i and 2 i + 1 are those of step i
        return None if evaluation % 2 else evaluation // 2
    number = total - 1 - evaluation  # routers are numbered by timestep, from the last evaluation on
    return None if policy == "alternate" and number % 2 else number
