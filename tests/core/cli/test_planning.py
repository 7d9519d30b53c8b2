import pytest
from smoothcache_core.cli.plan_options import parse_bytes
from smoothcache_core.cli.planning import PlanSettings
from smoothcache_core.errors import CommandError
from smoothcache_core.planning import Limits
from typer import BadParameter


def test_settings_say_whether_sensitivities_are_needed():
    assert PlanSettings(computes=[0.5]).plans
    assert PlanSettings(front=True, limits=Limits(first=2)).plans
    assert not PlanSettings(computes=[0.5], rule="smooth", per="site", strict=True).plans
    with pytest.raises(CommandError, match="nothing to plan"):
        PlanSettings(per="site")


# ---------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("500mb", 5 * 10**8), ("12", 12), ("7 B", 7),
        ("3KiB", 3072), ("0.5kB", 500), (1000, 1000),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, expected: int):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "2 TB", "1e9", "2GB3"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(BadParameter, match="is no size; give bytes, or for example 500MB"):
        parse_bytes(text)
