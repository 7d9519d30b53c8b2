import pytest
from smoothcache_core.cli.sizes import parse_bytes


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
    with pytest.raises(ValueError, match="is no size; give bytes, or for example 500MB"):
        parse_bytes(text)
