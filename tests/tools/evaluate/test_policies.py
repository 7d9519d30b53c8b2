"""Policies of the evaluation, on a toy."""

import pytest
from kit.helpers import ADAPTER
from smoothcache_core import Calibration, Schedule
from smoothcache_core.errors import ScheduleError
from smoothcache_core.fills import taylor
from smoothcache_core.sources.extrapolated import extrapolated
