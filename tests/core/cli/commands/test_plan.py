from pathlib import Path

import pytest
from smoothcache_core.cli.commands.plan import Plan
from smoothcache_core.errors import CommandError

FILE = Path("calibration.safetensors")


def test_settings_say_whether_sensitivities_are_needed():
    assert Plan(FILE, computes=(0.5,)).plans
    assert Plan(FILE, front=True, first=2).plans
    assert not Plan(FILE, computes=(0.5,), rule="smooth", per="site", strict=True).plans
    with pytest.raises(CommandError, match="nothing to plan"):
        Plan(FILE, per="site")
