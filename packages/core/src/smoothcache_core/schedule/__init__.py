"""The portable description of what is computed and how the rest is filled."""

from smoothcache_core.schedule.channels import Channels
from smoothcache_core.schedule.cost import Cost, SiteCost
from smoothcache_core.schedule.fill import Fill
from smoothcache_core.schedule.fingerprint import Fingerprint
from smoothcache_core.schedule.front import Front
from smoothcache_core.schedule.provenance import Aim, Distances, Prediction, Provenance
from smoothcache_core.schedule.schedule import Schedule
from smoothcache_core.schedule.sharing.index import Measured
from smoothcache_core.schedule.storage import Storage

__all__ = [
    "Aim",
    "Channels",
    "Cost",
    "Distances",
    "Fill",
    "Fingerprint",
    "Front",
    "Measured",
    "Prediction",
    "Provenance",
    "Schedule",
    "SiteCost",
    "Storage",
]
