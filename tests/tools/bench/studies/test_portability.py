from pathlib import Path

import pytest
from kit.audio_folders import save_stable_audio_tools

from tools.bench.studies.portability import (
    AudioSettings,
    ImageSettings,
    measure_audio,
    measure_image,
)

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),  # torchsde, of rounding
    pytest.mark.filterwarnings("ignore:a run of [68] evaluations"),  # which is meant here
    pytest.mark.filterwarnings("ignore:only .* calibrated"),  # few samples, for speed
    pytest.mark.filterwarnings("ignore:the predicted error"),  # which steps so few make large
    pytest.mark.filterwarnings("ignore:the calibration explains only"),
]
KEYS = "policy compute planned_from predicted_error rel_l2 rel_l2_spread told"


@pytest.mark.slow
def test_plans_are_used_at_other_steps_and_guidance():
    settings = ImageSettings(steps=8, other_steps=(6,), other_guidance=(2.0,), batch=1)
    record = measure_image(settings)
    known = [(row["evaluations"], row["guidance"], row["planned_from"]) for row in record.rows]
    three = 3  # plans from each calibration
    assert known[::three] == [
        (6, 1.5, "calibrated"),
        (6, 1.5, "transferred"),
        (8, 2.0, "calibrated"),
        (8, 2.0, "other guidance"),
        (8, 2.0, "transferred"),
    ]
    assert len(known) == three * 5
    for row in record.rows:
        assert set(KEYS.split()) <= set(row)
        assert row["rel_l2"] > 0.0
        assert ("guidance" in row["told"]) == (row["planned_from"] == "other guidance")
    assert record.what == "transfer"


@pytest.mark.slow
def test_plans_are_used_at_other_lengths(tmp_path: Path):
    folder = save_stable_audio_tools(tmp_path / "tiny")
    settings = AudioSettings(
        model=str(folder), steps=6, seconds=0.2, lengths=(0.2, 0.4), batch=2, progress=False
    )
    record = measure_audio(settings)
    known = [(row["length_seconds"], row["policy"], row["planned_from"]) for row in record.rows]
    assert known == [
        (length, target, source)
        for length in (0.2, 0.4)
        for target in ("denoiser", "site")
        for source in ("own length", "other length")
    ]
    assert all(set(KEYS.split()) <= set(row) for row in record.rows)
    own, other = record.rows[:2]
    assert own["rel_l2"] == other["rel_l2"] > 0.0  # at the length of the calibration
    assert record.what == "length"
