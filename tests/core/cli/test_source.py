import pytest
from smoothcache_core.cli.source import largest_divisor


@pytest.mark.parametrize(("number", "limit", "expected"), [(20, 10, 10), (14, 10, 7), (13, 10, 1)])
def test_the_largest_divisor(number: int, limit: int, expected: int):
    assert largest_divisor(number, limit) == expected
