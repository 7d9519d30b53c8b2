"""Files that an earlier version wrote: read and written byte for byte, and planned the same again.

`tests/golden` holds two calibrations of a small random DiT (`ddim` and `dpm`, a DPM-Solver++; 10
evaluations, guidance in one batch), plans of each at compute 0.6 by every target, and two fits.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from smoothcache_core import Calibration, Schedule, plan

GOLDEN = Path(__file__).parents[1] / "golden"
SOLVERS = ("ddim", "dpm")
TARGETS = ("auto", "denoiser", "site", "kind", "evaluation", "smooth")
PLANS = [(solver, target) for solver in SOLVERS for target in TARGETS]

# Between two CPUs the last bits of a sum of products differ, and least squares magnify that.
CLOSE = 1e-6


def coefficients(schedule: Schedule) -> dict[tuple[str, str, int], float | tuple[float, ...]]:
    return {
        (key, name, evaluation): value
        for key, fill in schedule.fills.items()
        for name in ("terms", "inputs", "anchors")
        for evaluation, value in getattr(fill, name).items()
    }


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.safetensors")), ids=lambda file: file.stem)
def test_a_calibration_is_written_as_it_was_read_and_with_a_checksum(file: Path, tmp_path: Path):
    known = Calibration.load(file)
    written = known.save(tmp_path / file.name).read_bytes()
    (before, arrays), (after, same) = apart(file.read_bytes()), apart(written)
    assert same == arrays
    assert after == {**before, "checksum": after["checksum"]}
    assert Calibration.load(tmp_path / file.name).save(tmp_path / "again").read_bytes() == written


def apart(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header of a calibration file, and what its arrays take."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8:end])["__metadata__"]["smoothcache"]), content[end:]


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.json")), ids=lambda file: file.stem)
def test_a_schedule_is_written_as_it_was_read(file: Path, tmp_path: Path):
    Schedule.load(file).save(tmp_path / file.name)
    assert (tmp_path / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(("solver", "target"), PLANS)
def test_a_calibration_is_planned_as_it_was(solver: str, target: Any):
    known = Schedule.load(GOLDEN / f"{solver}-{target}.json")
    made = plan(Calibration.load(GOLDEN / f"{solver}.safetensors"), compute=0.6, target=target)
    assert made.rows == known.rows
    assert coefficients(made).keys() == coefficients(known).keys()
    for place, value in coefficients(known).items():
        assert coefficients(made)[place] == pytest.approx(value, rel=CLOSE, abs=CLOSE), place
    assert made.prediction is not None
    assert known.prediction is not None
    assert made.prediction.error == pytest.approx(known.prediction.error, rel=CLOSE)
