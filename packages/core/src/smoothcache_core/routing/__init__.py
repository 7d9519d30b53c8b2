"""Learned routers: which outputs are reused is trained, not planned.

HarmoniCa (arXiv 2410.01723) and its parent, Learning-to-Cache (arXiv 2406.01733), for any sampler.
"""

from smoothcache_core.routing.noised import CleanLatents
from smoothcache_core.routing.proxy import ErrorProxy
from smoothcache_core.routing.router import Routers, load_routers
from smoothcache_core.routing.settings import HARMONICA, LEARNING_TO_CACHE, RouterSettings
from smoothcache_core.routing.training import train_router, trained_for

__all__ = [
    "HARMONICA",
    "LEARNING_TO_CACHE",
    "CleanLatents",
    "ErrorProxy",
    "RouterSettings",
    "Routers",
    "load_routers",
    "train_router",
    "trained_for",
]
