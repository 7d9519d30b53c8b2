"""The package DeepCache beside our schedule of the same interval and branch.

The package is not installed with this project: `pip install --no-deps DeepCache`. Its helper is
loaded from its file, since the rest of it is for releases of diffusers of long ago.
"""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from smoothcache_core.pipelines import PipelineFamily
from smoothcache_core.sources import deepcache
from torch import Tensor

_FAMILY = PipelineFamily(adapters=(), classes=(), frames=True)


def helper_class() -> Any:
    """Return the package's `DeepCacheSDHelper`; None if it is not installed."""
    found = importlib.util.find_spec("DeepCache")
    if found is None or not found.submodule_search_locations:
        return None
    file = Path(found.submodule_search_locations[0]) / "extension" / "deepcache.py"
    spec = importlib.util.spec_from_file_location("deepcache_helper", file)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.DeepCacheSDHelper


def difference(pipe: Any, sample: Any, *, interval: int, branch: int) -> float:
    """Return the largest difference between what the package and our schedule give.

    Args:
        pipe: A pipeline with a UNet.
        sample: Calls it once and returns a tensor, always from the same noise.
        interval: Distance between whole evaluations.
        branch: Number of the branch.
    """
    helper = helper_class()(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()
    try:
        theirs: Tensor = sample()
    finally:
        helper.disable()
    timesteps = pipe.scheduler.timesteps.tolist()  # of the run that was just made
    schedule = deepcache(
        pipe.unet,
        interval=interval,
        branch=branch,
        evaluations=len(timesteps),
        timesteps=timesteps,
    )
    with _FAMILY.cached_pipeline(pipe, schedule):
        ours: Tensor = sample()
    return float(torch.max(torch.abs(ours - theirs)))
