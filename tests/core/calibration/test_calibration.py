"""The calibration as a value and as a file: exact sums that merge in any order."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from kit.helpers import calibration_of, with_sites
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from smoothcache_core import Calibration
from smoothcache_core.errors import CalibrationError
from smoothcache_core.numerics.reproducible_sum import cut
from smoothcache_core.schedule import Fingerprint

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
    costs = [one().cost.changed(total=total) for total in (10, 20)]
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


THREE = calibration_of(np.ones((2, 3, 4)))
MISMATCHES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "class": (
        printed(model_class="A"),
        printed(model_class="B"),
        "model_class is 'B' instead of 'A'",
    ),
    "weights": (printed(config_hash="1"), printed(config_hash="2"), "config_hash is '2'"),
    "adapter": (printed(adapter="a"), printed(adapter="b"), "adapter is 'b' instead of 'a'"),
    "solver": (
        printed(solver="DDIM"),
        printed(solver="Heun"),
        "solver is 'Heun' instead of 'DDIM'",
    ),
    "unknown solver": (printed(), printed(solver="Heun"), "solver is 'Heun' instead of None"),
    "evaluations": (printed(evaluations=4), printed(), "evaluations is None instead of 4"),
    "timesteps": (
        printed(timesteps=(9, 3, 2, 1)),
        printed(timesteps=(8, 3, 2, 1)),
        "the timesteps differ",
    ),
    "shape": (
        printed(latent_shape=(4,)),
        printed(latent_shape=(8,)),
        r"shape is \(8,\) instead of \(4",
    ),
    "dtype": (printed(dtype="float16"), printed(dtype="float32"), "dtype is 'float32'"),
    "guidance": (printed(branches=()), printed(branches=("c", "u")), r"branches is \('c', 'u'\)"),
    "branches": ({}, {"branches": ("other",)}, "the sites or branches differ"),
    "lags": ({}, {"totals": THREE.totals, "squares": THREE.squares}, "max_lag is 3 instead of 2"),
}


@pytest.mark.parametrize(("left", "right", "message"), MISMATCHES.values(), ids=MISMATCHES)
def test_calibrations_of_different_things_are_not_merged(
    left: dict[str, Any], right: dict[str, Any], message: str
):
    with pytest.raises(CalibrationError, match=f"cannot merge calibrations: .*{message}"):
        Calibration.merge(one(0, **left), one(1, **right))
    with pytest.raises(CalibrationError, match="cannot merge calibrations"):
        Calibration.merge(one(1, **right), one(0, **left))


def test_calibrations_of_other_sites_are_not_merged():
    other = one(1)
    with pytest.raises(CalibrationError, match="cannot merge calibrations: the sites or branches"):
        Calibration.merge(one(0), with_sites(other, other.sites[::-1]))


def test_every_part_is_checked():
    """That the first is silent about its solver makes no bridge between two others."""
    solvers = [one(seed, **printed(solver=solver)) for seed, solver in enumerate("ab")]
    with pytest.raises(CalibrationError, match="solver is"):
        Calibration.merge(one(9, **printed()), *solvers)


# ---------------------------------------------------------------------------- views


def test_curves_average_sites_and_branches():
    errors = np.arange(16.0).reshape(2, 2, 4) / 2
    plain = calibration_of(errors)
    both = replace(
        plain,
        branches=("c", "u"),
        totals=np.concatenate((plain.totals, plain.totals + 2), axis=1),
        squares=np.concatenate((plain.squares, np.square(plain.totals + 2)), axis=1),
    )
    expected = plain.totals[:, 0] + 1
    for per, keys in (("site", ("blocks.0.attn", "blocks.0.ff")), ("kind", ("attn", "ff"))):
        curves = both.curves(per=per)
        assert tuple(curves) == keys
        np.testing.assert_array_equal(list(curves.values()), expected)
    same = with_sites(both, [replace(site, kind="any") for site in both.sites])
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
    assert one() != replace(one(), squares=one().squares + GRID)
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
        del header["checksum"]  # as in files of before
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
    "2.0": (rewritten(lambda header: header.update(version=2.0)), "version 2.0, expected 2"),
    "no sites": (rewritten(lambda header: header.pop("sites")), "sites: Field required"),
    "no cost": (rewritten(lambda header: header.pop("cost")), "cost: Field required"),
    "fewer sites": (rewritten(lambda header: header["sites"].pop()), r"here \(1, 1, ...\)"),
    "site twice": (
        rewritten(lambda header: header.update(sites=[header["sites"][0]] * 2)),
        "a site occurs twice",
    ),
    "other costs": (rewritten(lambda header: header["cost"].update(sites=[])), "sites of its cost"),
    "half a sample": (rewritten(lambda header: header.update(samples=1.5)), "samples: Input"),
    "truth": (
        rewritten(lambda header: header.update(samples=True)),
        "samples: Input should be a v",
    ),
    "too many": (rewritten(lambda header: header.update(samples=2**20)), "have 1048576 samples"),
    "no seeds": (rewritten(lambda header: header.update(seeds=[])), "seeds: Value should have"),
    "odd seeds": (rewritten(lambda header: header.update(seeds="abc")), "seeds: Input should be"),
    "too many seeds": (
        rewritten(lambda header: header.update(seeds=[1, 2])),
        "2 seeds have 1 sampl",
    ),
    "seeds down": (
        rewritten(lambda header: header.update(seeds=[2, 1], samples=2)),
        "seeds are in ascending order",
    ),
    "evaluations": (
        rewritten(lambda header: header["fingerprint"].update(evaluations=9)),
        "of 4 evaluations, its fingerprint says 9",
    ),
    "unknown field": (rewritten(lambda header: header.update(foo=1)), "foo: Extra inputs"),
    "deep": (
        rewritten(lambda header: header.update(remark=[[]] * 3)),
        "remark: Input should be a v",
    ),
    "odd sites": (rewritten(lambda header: header.update(sites=[1])), ""),
    "odd print": (rewritten(lambda header: header.update(fingerprint={"x": 1})), "Extra inputs"),
    "null": (rewritten(lambda header: header.update(samples=None)), "samples: Input should be"),
}


@pytest.mark.parametrize(("write", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_files_are_refused(write: Callable[[Path], None], message: str, tmp_path: Path):
    path = tmp_path / "calibration.safetensors"
    write(path)
    with pytest.raises(CalibrationError, match=f"(?s)is not a calibration file: .*{message}"):
        Calibration.load(path)


def with_arrays(path: Path, change: Callable[[dict[str, NDArray[Any]]], object]) -> Path:
    """Change the arrays of a file, and take its checksum away."""
    with safe_open(path, "np") as file:
        header = json.loads(file.metadata()["smoothcache"])
    header.pop("checksum", None)
    arrays = load_file(path)
    change(arrays)
    save_file(arrays, path, {"smoothcache": json.dumps(header)})
    return path


def products(sites: int = 2, evaluations: int = 4, lags: int = 2) -> NDArray[np.float64]:
    """Return products of outputs that never change, of length 16."""
    known = np.zeros((3, sites, evaluations, lags + 1))
    for lag in range(lags + 1):
        known[0, :, lag:, lag] = 256.0
    return known


BROKEN: dict[str, tuple[Callable[[dict[str, NDArray[Any]]], object], str]] = {
    "totals NaN": (lambda a: a["totals"].fill(np.nan), "NaN where they must be known"),
    "one total NaN": (lambda a: np.put(a["totals"], 0, np.nan), "NaN where they must be known"),
    "one error NaN": (
        lambda a: [np.put(a[name], 0, np.nan) for name in ("totals", "squares")],
        "NaN where they must be known",
    ),
    "known past the end": (
        lambda a: [np.put(a[name], 3, 0.25) for name in ("totals", "squares")],
        "or known where they cannot",
    ),
    "totals infinite": (
        lambda a: np.put(a["totals"], 0, np.inf),
        "finite where an error is infini",
    ),
    "totals negative": (
        lambda a: np.put(a["totals"], 0, -1.0),
        "1 of 16 numbers in 'totals' are neg",
    ),
    "totals too large": (lambda a: np.put(a["totals"], 0, 17.0), "'totals' are above the largest"),
    "totals off the grid": (
        lambda a: np.put(a["totals"], 0, 0.1),
        "above the largest, or not round",
    ),
    "squares too small": (lambda a: np.put(a["squares"], 0, 0.0), "'squares' is too small for"),
    "squares too large": (lambda a: np.put(a["squares"], 0, 257.0), "'squares' are above the larg"),
    "totals of integers": (
        lambda a: a.update(totals=np.zeros(a["totals"].shape, dtype=np.int64)),
        "'totals' is not of float64",
    ),
    "one lag less": (lambda a: a.update(totals=a["totals"][:, :, 1:].copy()), "totals and squares"),
    "flat": (lambda a: a.update(totals=a["totals"].ravel()), "totals and squares are"),
    "no totals": (lambda a: a.pop("totals"), "the array 'totals' is missing"),
    "more": (lambda a: a.update(x=np.zeros(3)), r"no part of a calibration: \['x'\]"),
    "whole runs without a header": (
        lambda a: a.update({"dynamics.gram": np.zeros((3, 2, 2))}),
        r"no part of a calibration: \['dynamics.gram'\]",
    ),
    "products NaN": (
        lambda a: np.put(a["products"], 0, np.nan),
        "1 of 72 numbers in 'products' are",
    ),
    "products off the grid": (lambda a: np.put(a["products"], 0, 1.0), "no parts of exact sums"),
    "products negative": (lambda a: np.put(a["products"], 0, -256.0), "squares below 0"),
    "products before the first": (lambda a: np.put(a["products"], 1, 256.0), "before the first"),
    "products too large": (lambda a: np.put(a["products"], 4, 512.0), "that no outputs can have"),
    "products of fewer lags": (
        lambda a: a.update(products=a["products"][..., 1:].copy()),
        r"'products' has shape \(3, 2, 4, 2\), not \(3, 2, 4, 3\)",
    ),
    "influence without counts": (
        lambda a: a.update({"influence.totals": np.zeros((3, 2, 4))}),
        "the array 'influence.counts' is missing",
    ),
    "influence of other sites": (
        lambda a: a.update(
            {"influence.totals": np.zeros((3, 1, 4)), "influence.counts": np.zeros((1, 4))}
        ),
        r"'influence.counts' has shape \(1, 4\)",
    ),
    "half a count": (
        lambda a: a.update(
            {"influence.totals": np.zeros((3, 2, 4)), "influence.counts": np.full((2, 4), 0.5)}
        ),
        "numbers that are no integers",
    ),
    "more counts than runs": (
        lambda a: a.update(
            {"influence.totals": np.zeros((3, 2, 4)), "influence.counts": np.full((2, 4), 2.0)}
        ),
        "more often than in 1 runs",
    ),
    "influence of nothing": (
        lambda a: a.update(
            {"influence.totals": cut(np.ones((2, 4))), "influence.counts": np.zeros((2, 4))}
        ),
        "'influence.counts' is 0 where something was summed",
    ),
}


@pytest.mark.parametrize(("change", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_arrays_are_refused(
    change: Callable[[dict[str, NDArray[Any]]], object], message: str, tmp_path: Path
):
    path = one(products=products()).save(tmp_path / "calibration.safetensors")
    assert Calibration.load(with_arrays(path, lambda arrays: None)) == one(products=products())
    with_arrays(path, change)
    with pytest.raises(CalibrationError, match=message):
        Calibration.load(path)


def test_errors_may_be_infinite(tmp_path: Path):
    infinite = calibration_of(np.full((2, 2, 4), np.inf))
    assert Calibration.load(infinite.save(tmp_path / "calibration.safetensors")) == infinite


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path):
    path = one(products=products()).save(tmp_path / "calibration.safetensors")
    content = path.read_bytes()
    for place in range(0, len(content), 7):
        for bit in (0, 6):
            flipped = bytearray(content)
            flipped[place] ^= 1 << bit
            path.write_bytes(flipped)
            with pytest.raises(CalibrationError, match="is not a calibration file"):
                Calibration.load(path)


def test_a_file_of_something_else_that_is_cut_short_is_refused(tmp_path: Path):
    path = tmp_path / "calibration.safetensors"
    for content in (b"", b"\xff" * 7, b"\xff" * 9, (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(CalibrationError, match="is not a calibration file"):
            Calibration.load(path)


def test_arrays_are_saved_however_they_lie_in_memory(tmp_path: Path):
    plain = calibration_of(np.arange(32.0).reshape(2, 4, 4) / 4)
    turned = np.asfortranarray(plain.totals), np.asfortranarray(plain.squares)
    known = replace(plain, totals=turned[0], squares=turned[1])
    assert Calibration.load(known.save(tmp_path / "calibration.safetensors")) == known


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(CalibrationError, match=r"cannot read .*No such file"):
        Calibration.load(tmp_path / "nothing")


def test_the_rewriting_of_this_test_gives_a_good_file(tmp_path: Path):
    path = tmp_path / "calibration.safetensors"
    rewritten(lambda header: None)(path)
    assert Calibration.load(path) == one()


def test_a_repr_says_in_a_few_lines_what_was_measured():
    text = repr(one(products=products(), remark="no final latent"))
    assert text.splitlines() == [
        "Calibration of Toy, adapter toy",
        "  solver unknown, 4 evaluations",
        "  1 sample of 1 seed, lags up to 2",
        "  sites: 1 attn, 1 ff",
        "  measured: errors, inner products",
        "  remark: no final latent",
    ]
