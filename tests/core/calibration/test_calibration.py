"""The calibration as a value and as a file: exact sums that merge in any order."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from kit.helpers import calibration_of
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from smoothcache_core import Calibration
from smoothcache_core.errors import CalibrationError
from smoothcache_core.schedule import Cost, Fingerprint

GRID = 2.0**-32


@st.composite
def runs(draw: st.DrawFn, at_least: int = 1) -> list[Calibration]:
    """Return single runs, of one sample each, whose errors are on the grid."""
    shape = (2, 2, 3)
    error = st.integers(0, 2**36).map(lambda n: n * GRID) | st.just(float("inf"))
    size = int(np.prod(shape))
    count = draw(st.integers(at_least, 6))
    seeds = draw(st.lists(st.integers(0, 99), min_size=count, max_size=count, unique=True))
    tables = [draw(st.lists(error, min_size=size, max_size=size)) for _ in seeds]
    return [
        calibration_of(np.reshape(table, shape), seeds=[seed])
        for seed, table in zip(seeds, tables, strict=True)
    ]


def one(seed: int = 0, **changes: Any) -> Calibration:
    return replace(calibration_of(np.full((2, 2, 4), 0.25), seeds=[seed]), **changes)


# ---------------------------------------------------------------------------- merging


@given(runs(at_least=2), st.data())
def test_merging_is_exact_in_any_order_and_grouping(parts: list[Calibration], data: st.DataObject):
    whole = Calibration.merge(*parts)
    heap = data.draw(st.permutations(parts))
    while len(heap) > 1:
        count = data.draw(st.integers(2, len(heap)))
        heap = data.draw(st.permutations([Calibration.merge(*heap[:count]), *heap[count:]]))
    assert heap[0] == whole
    assert heap[0].totals.tobytes() == whole.totals.tobytes()
    assert heap[0].squares.tobytes() == whole.squares.tobytes()


@given(runs())
def test_mean_and_spread_are_those_of_the_samples(parts: list[Calibration]):
    """Up to the rounding of squares: 2^-32 in the variance."""
    whole, samples = Calibration.merge(*parts), np.stack([part.totals for part in parts])
    infinite = np.isinf(samples).any(axis=0)
    np.testing.assert_array_equal(whole.mean(), samples.sum(axis=0) / len(parts))
    with np.errstate(invalid="ignore"):
        spread = samples.std(axis=0, ddof=1) if len(parts) > 1 else samples[0] * 0
    expected = np.where(infinite, np.inf, spread)
    np.testing.assert_allclose(whole.spread(), expected, rtol=1e-6, atol=1e-4)
    assert (whole.samples, whole.seeds) == (len(parts), tuple(sorted(p.seeds[0] for p in parts)))


def test_a_single_part_merges_to_itself():
    assert Calibration.merge(one()) == one()


def test_what_the_parts_do_not_share_is_left_out_in_any_order():
    """Packages may differ between machines, batches between runs."""
    prints = [
        Fingerprint(model_class="Toy", versions=versions)
        for versions in ({"torch": "2.9", "numpy": "2"}, {"torch": "2.11", "numpy": "2"})
    ]
    costs = Cost(total=10, sites=()), Cost(total=20, sites=())
    parts = [one(seed, fingerprint=prints[seed], cost=costs[seed]) for seed in (0, 1)]
    merged = Calibration.merge(*parts)
    assert merged == Calibration.merge(*reversed(parts))
    assert dict(merged.fingerprint.versions) == {"numpy": "2"}
    assert merged.cost in costs


def test_seeds_never_count_twice():
    parts = Calibration.merge(one(3), one(5)), Calibration.merge(one(5), one(7), one(3))
    with pytest.raises(CalibrationError, match=r"seeds \[3, 5\] occur in more than one part"):
        Calibration.merge(*parts)


def test_nothing_cannot_be_merged():
    with pytest.raises(CalibrationError, match="nothing to merge"):
        Calibration.merge()


def printed(**known: Any) -> dict[str, Any]:
    return {"fingerprint": Fingerprint(**known)}


MISMATCHES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "class": (printed(model_class="A"), printed(model_class="B"), "model_class is 'B', not 'A'"),
    "weights": (printed(config_hash="1"), printed(config_hash="2"), "config_hash is '2'"),
    "adapter": (printed(adapter="a"), printed(adapter="b"), "adapter is 'b', not 'a'"),
    "solver": (printed(solver="DDIM"), printed(solver="Heun"), "solver is 'Heun', not 'DDIM'"),
    "unknown solver": (printed(), printed(solver="Heun"), "solver is 'Heun', not None"),
    "evaluations": (printed(evaluations=4), printed(evaluations=5), "evaluations is 5, not 4"),
    "timesteps": (printed(timesteps=(9,)), printed(timesteps=(8,)), "the timesteps differ"),
    "shape": (printed(latent_shape=(4,)), printed(latent_shape=(8,)), r"shape is \(8,\), not \(4"),
    "dtype": (printed(dtype="float16"), printed(dtype="float32"), "dtype is 'float32'"),
    "guidance": (printed(branches=()), printed(branches=("c", "u")), r"branches is \('c', 'u'\)"),
    "branches": ({}, {"branches": ("other",)}, "the sites or branches differ"),
    "sites": ({}, {"sites": calibration_of(np.ones((2, 1, 1))).sites[::-1]}, "the sites or"),
    "lags": (
        {},
        {"totals": np.ones((2, 1, 3, 4)), "squares": np.ones((2, 1, 3, 4))},
        "max_lag is 3, not 2",
    ),
}


@pytest.mark.parametrize(("left", "right", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_calibrations_of_different_things_are_not_merged(
    left: dict[str, Any], right: dict[str, Any], message: str
):
    with pytest.raises(CalibrationError, match=f"cannot merge calibrations: .*{message}"):
        Calibration.merge(one(0, **left), one(1, **right))
    with pytest.raises(CalibrationError, match="cannot merge calibrations"):
        Calibration.merge(one(1, **right), one(0, **left))


def test_every_part_is_checked():
    """That the first is silent about its solver makes no bridge between two others."""
    solvers = [one(seed, **printed(solver=solver)) for seed, solver in enumerate("ab")]
    with pytest.raises(CalibrationError, match="solver is"):
        Calibration.merge(one(9, **printed()), *solvers)


# ---------------------------------------------------------------------------- views


def test_curves_average_sites_and_branches():
    errors = np.arange(16.0).reshape(2, 2, 4)
    plain = calibration_of(errors)
    both = replace(
        plain,
        branches=("c", "u"),
        totals=np.concatenate((plain.totals, plain.totals + 2), axis=1),
        squares=np.ones((2, 2, 2, 4)),
    )
    expected = plain.totals[:, 0] + 1
    for per, keys in (("site", ("blocks.0.attn", "blocks.0.ff")), ("kind", ("attn", "ff"))):
        curves = both.curves(per=per)
        assert tuple(curves) == keys
        np.testing.assert_array_equal(list(curves.values()), expected)
    same = replace(both, sites=tuple(replace(site, kind="any") for site in both.sites))
    np.testing.assert_array_equal(same.curves()["any"], expected.mean(axis=0))


def test_curves_per_anything_else_are_refused():
    with pytest.raises(CalibrationError, match="per 'kind' or per 'site', not per 'block'"):
        one().curves(per="block")


def test_dimensions_are_named():
    calibration = calibration_of(np.ones((2, 3, 7)))
    assert (calibration.max_lag, calibration.evaluations) == (3, 7)
    assert calibration.kinds == ("attn", "ff")
    past_the_end = [[lag + i >= 7 for i in range(7)] for lag in (1, 2, 3)]
    np.testing.assert_array_equal(np.isnan(calibration.mean())[0, 0], past_the_end)


def test_equality_is_of_what_was_measured():
    assert one() == one()
    assert one() != one(1)
    assert one() != replace(one(), totals=one().totals + GRID)
    assert one() != "calibration"
    with pytest.raises(TypeError, match="unhashable"):
        hash(one())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"totals": np.ones((3, 1, 2, 4))}, r"here \(2, 1, ...\), got \(3, 1, 2, 4\)"),
        ({"squares": np.ones((2, 1, 2, 5))}, r"got \(2, 1, 2, 4\) and \(2, 1, 2, 5\)"),
        ({"totals": np.ones((2, 1)), "squares": np.ones((2, 1))}, r"got \(2, 1\)"),
        ({"branches": ()}, r"here \(2, 0, ...\)"),
        ({"samples": 0}, "at least 1 sample, got 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str):
    with pytest.raises(CalibrationError, match=message):
        one(**changes)


# ---------------------------------------------------------------------------- files


@given(runs())
def test_load_gives_what_was_saved(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Calibration]
):
    whole = Calibration.merge(*parts)
    path = tmp_path_factory.getbasetemp() / "calibration.safetensors"
    loaded = Calibration.load(whole.save(path))
    first = path.read_bytes()
    assert loaded == whole
    assert loaded.sites == whole.sites
    assert loaded.fingerprint == whole.fingerprint
    assert loaded.cost == whole.cost
    assert loaded.save(path).read_bytes() == first


def rewritten(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Return what saves a calibration whose header was changed."""

    def write(path: Path) -> None:
        one().save(path)
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["smoothcache"])
        change(header)
        arrays: dict[str, NDArray[np.float64]] = {"totals": one().totals, "squares": one().squares}
        save_file(arrays, path, metadata={"smoothcache": json.dumps(header)})

    return write


def damaged(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: [path.write_bytes(change(one().save(path).read_bytes())), None][1]


def without_metadata(path: Path) -> None:
    save_file({"totals": one().totals}, path)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (damaged(lambda content: content[:-8]), ""),
    "empty": (damaged(lambda content: b""), ""),
    "text": (damaged(lambda content: b'{"attn": [1, 0]}'), ""),
    "other": (without_metadata, ""),
    "format": (rewritten(lambda header: header.update(format="x")), "format 'x' version 2"),
    "version": (rewritten(lambda header: header.update(version=3)), "version 3, expected 2"),
    "no sites": (rewritten(lambda header: header.pop("sites")), "'sites'"),
    "no cost": (rewritten(lambda header: header.pop("cost")), "'cost'"),
    "fewer sites": (rewritten(lambda header: header["sites"].pop()), r"here \(1, 1, ...\)"),
    "odd sites": (rewritten(lambda header: header.update(sites=[1])), ""),
    "odd print": (rewritten(lambda header: header.update(fingerprint={"x": 1})), "Extra inputs"),
    "null": (rewritten(lambda header: header.update(samples=None)), "NoneType"),
}


@pytest.mark.parametrize(("write", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_refused(write: Callable[[Path], None], message: str, tmp_path: Path):
    path = tmp_path / "calibration.safetensors"
    write(path)
    with pytest.raises(CalibrationError, match=f"(?s)is not a calibration file: .*{message}"):
        Calibration.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["totals", "squares", "products"])
def test_broken_numbers_are_refused(name: str, value: float, tmp_path: Path):
    path = one(products=np.ones((3, 1, 4, 3))).save(tmp_path / "calibration.safetensors")
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    broken = load_file(path)
    broken[name].flat[0] = value
    save_file(broken, path, metadata)
    if name != "products" and not value < 0.0:  # errors may be infinite, or there may be none
        np.testing.assert_equal(getattr(Calibration.load(path), name).flat[0], value)
        return
    why = "NaN or infinite" if name == "products" else "negative"
    with pytest.raises(CalibrationError, match=f"1 of {broken[name].size} numbers in .* are {why}"):
        Calibration.load(path)


def test_arrays_are_saved_however_they_lie_in_memory(tmp_path: Path):
    totals = np.asfortranarray(np.arange(32.0).reshape(2, 1, 4, 4))
    known = one(totals=totals, squares=totals.transpose(0, 1, 3, 2))
    assert Calibration.load(known.save(tmp_path / "calibration.safetensors")) == known


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(CalibrationError, match=r"cannot read .*No such file"):
        Calibration.load(tmp_path / "nothing")


def test_the_rewriting_of_this_test_gives_a_good_file(tmp_path: Path):
    path = tmp_path / "calibration.safetensors"
    rewritten(lambda header: None)(path)
    assert Calibration.load(path) == one()
