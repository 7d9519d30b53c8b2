"""Calibration by several processes: the numbers of one, whatever happens to one of them."""

from collections.abc import Generator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from kit.helpers import STEPS, Toy, noise, sample, silent
from kit.ranks import SAMPLER, Outcome, Ranks, launched, sampler, shard, shard_in_a_group
from smoothcache_core import Calibration, calibrate
from smoothcache_core.errors import CalibrationError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.slow,  # until the processes have started
]
FIVE = range(5)


@pytest.fixture(scope="module")
def ranks() -> Generator[Ranks]:
    with launched() as started:
        yield started


def single(seeds: Sequence[int] = FIVE, **settings: Any) -> Calibration:
    """Calibrate by one process."""
    toy = Toy()
    of_sampler = {key: settings.pop(key) for key in SAMPLER & settings.keys()}
    given = silent(toy, sampler(toy), **of_sampler)
    return calibrate(given, seeds=seeds, progress=False, **{"max_lag": 3, **settings})


def part(checkpoint: Path, rank: int, world: int) -> Path:
    return checkpoint.with_name(f"{checkpoint.stem}.rank{rank}-of-{world}.safetensors")


def assert_settled(checkpoint: Path, expected: Calibration) -> None:
    """Assert that everything is in one file."""
    assert Calibration.load(checkpoint) == expected
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


# ---------------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("sensitivity", [0, 1, 3, [1, 4]])
def test_sensitivities_are_those_of_the_same_seeds(ranks: Ranks, sensitivity: int | list[int]):
    expected = single(sensitivity=sensitivity)
    outcomes: list[Outcome] = ranks.run(shard, {"sensitivity": sensitivity})
    assert [outcome.calibration == expected for outcome in outcomes] == [True, True]


@pytest.mark.parametrize(
    ("seeds", "shares"),
    [(range(5), [[0, 2, 4], [1, 3]]), ([7, 3], [[7], [3]]), ([4], [[4], []])],
    ids=["five", "two", "one"],
)
def test_ranks_share_the_seeds_and_return_what_one_process_does(
    ranks: Ranks, seeds: Sequence[int], shares: list[list[int]], tmp_path: Path
):
    checkpoint = tmp_path / "c.safetensors"
    outcomes: list[Outcome] = ranks.run(shard, {"seeds": seeds, "checkpoint": checkpoint})
    expected = single(seeds)
    assert [outcome.calibration == expected for outcome in outcomes] == [True, True]
    assert [outcome.ran for outcome in outcomes] == shares
    assert_settled(checkpoint, expected)


def test_options_reach_every_rank(ranks: Ranks):
    settings = {
        "max_lag": 2,
        "samples": 2,
        "sensitivity": 0,
        "branches": ("one",),
        "solver": "exact",
        "references": "cpu",
    }
    expected = single(**settings)
    assert expected.branches == ("one",)
    assert (expected.samples, expected.max_lag, expected.fingerprint.solver) == (10, 2, "exact")
    assert [o.calibration == expected for o in ranks.run(shard, settings)] == [True, True]


def test_the_process_group_of_the_user_is_used_and_kept(ranks: Ranks, tmp_path: Path):
    each = [{"file": tmp_path / "meet", "rank": rank} for rank in (1, 0)]
    outcomes: list[Outcome] = ranks.run(shard_in_a_group, *each)
    assert [outcome.ran for outcome in outcomes] == [[1, 3], [0, 2, 4]]
    assert [outcome.calibration == single() for outcome in outcomes] == [True, True]
    assert [outcome.group for outcome in outcomes] == [True, True]


def test_a_process_group_made_for_the_call_is_gone_after_it(ranks: Ranks):
    for _ in range(3):
        assert [outcome.group for outcome in ranks.run(shard, {})] == [False, False]


def test_only_rank_0_shows_its_progress(ranks: Ranks):
    said = [outcome.said for outcome in ranks.run(shard, {"progress": True})]
    assert "calibrating: 100%" in said[0]
    assert said[1] == ""


def test_a_process_by_itself_just_calibrates(tmp_path: Path):
    checkpoint = tmp_path / "c.safetensors"
    outcome = shard(checkpoint=checkpoint)
    assert outcome.calibration == single()
    assert outcome.ran == list(FIVE)
    assert not outcome.group
    assert_settled(checkpoint, single())


# ---------------------------------------------------------------------------- failures


@pytest.mark.parametrize("fail", [2, 3])
def test_all_ranks_raise_what_failed_on_one(ranks: Ranks, fail: int):
    rank = fail % 2
    message = f"rank {rank} of 2 failed: ValueError: no noise for seed {fail}"
    errors = ranks.errors(shard, {"fail": (fail,)})
    assert [(type(error), str(error)) for error in errors] == [(CalibrationError, message)] * 2
    assert [outcome.calibration == single() for outcome in ranks.run(shard, {})] == [True, True]


def test_all_ranks_that_failed_are_named(ranks: Ranks):
    for error in ranks.errors(shard, {"max_lag": 0}):
        with pytest.raises(
            CalibrationError, match=r"rank 0 of 2 failed .*too: \[1\].*at least 1, got 0"
        ):
            raise error or AssertionError


def test_seeds_that_cannot_be_shared_are_refused(ranks: Ranks):
    for given in ([], [3, 4, 3]):
        errors = ranks.errors(shard, {"seeds": given})
        message = f"calibration needs distinct seeds, got {given}"
        assert [str(error) for error in errors] == [message] * 2
    errors = ranks.errors(shard, {"seeds": [0, 1]}, {"seeds": [2, 3]})
    assert all("rank 0 has [0, 1], rank 1 has [2, 3]" in str(error) for error in errors)


@pytest.mark.slow
def test_a_rank_that_ends_does_not_leave_the_other_waiting():
    with launched() as own:
        lost, ended = own.errors(shard, {"die": (3,)})
    assert isinstance(ended, BrokenProcessPool)
    assert isinstance(lost, CalibrationError)
    assert str(lost).startswith("rank 0 of 2 lost contact with the others; one of them exited: ")


# ---------------------------------------------------------------------------- going on


@pytest.fixture
def interrupted(ranks: Ranks, tmp_path: Path) -> Path:
    """A checkpoint of two ranks, of which one has run the seeds 0, 2, 4, the other only 1."""
    checkpoint = tmp_path / "c.safetensors"
    ranks.errors(shard, {"fail": (3,), "checkpoint": checkpoint})
    assert Calibration.load(part(checkpoint, 0, 2)).seeds == (0, 2, 4)
    assert Calibration.load(part(checkpoint, 1, 2)).seeds == (1,)
    assert not checkpoint.exists()
    return checkpoint


def test_ranks_go_on_where_they_failed(ranks: Ranks, interrupted: Path):
    outcomes: list[Outcome] = ranks.run(shard, {"checkpoint": interrupted})
    assert [outcome.ran for outcome in outcomes] == [[3], []]
    assert [outcome.calibration == single() for outcome in outcomes] == [True, True]
    assert_settled(interrupted, single())


def test_one_process_goes_on_where_ranks_failed(interrupted: Path):
    outcome = shard(checkpoint=interrupted, seeds=range(6))
    assert outcome.ran == [3, 5]
    assert outcome.calibration == single(range(6))
    assert_settled(interrupted, single(range(6)))


def test_ranks_that_fail_again_lose_nothing(ranks: Ranks, interrupted: Path):
    again = {"checkpoint": interrupted, "seeds": range(8), "fail": (3, 5)}
    ranks.errors(shard, again)
    assert Calibration.load(interrupted).seeds == (0, 1, 2, 4)
    outcomes: list[Outcome] = ranks.run(shard, {**again, "fail": ()})
    assert sorted(outcomes[0].ran + outcomes[1].ran) == [3, 5, 6, 7]
    assert_settled(interrupted, single(range(8)))


@pytest.mark.parametrize(
    ("whole", "first", "second", "left"),
    [
        ([0, 1], [2], [4], [[3], []]),
        ([0, 1, 2], [0], [2, 1], [[3], [4]]),
        ([0, 1, 2], [2, 3], [4], [[3], []]),
        ([0], [0, 2, 4], [1], [[3], []]),
    ],
    ids=["apart", "already in the whole", "partly in the whole", "more than the whole"],
)
def test_ranks_go_on_from_files_of_other_ranks(
    ranks: Ranks,
    whole: list[int],
    first: list[int],
    second: list[int],
    left: list[list[int]],
    tmp_path: Path,
):
    checkpoint = tmp_path / "c.safetensors"
    single(whole, sensitivity=(0, 1), checkpoint=checkpoint)
    single(first, sensitivity=(0, 1), checkpoint=part(checkpoint, 0, 3))
    single(second, sensitivity=(0, 1), checkpoint=part(checkpoint, 2, 3))
    outcomes: list[Outcome] = ranks.run(shard, {"checkpoint": checkpoint})
    assert [outcome.ran for outcome in outcomes] == left
    assert [outcome.calibration == single() for outcome in outcomes] == [True, True]
    assert_settled(checkpoint, single())


def test_a_complete_calibration_is_not_repeated(ranks: Ranks, tmp_path: Path):
    checkpoint = tmp_path / "c.safetensors"
    expected = single(range(7), checkpoint=checkpoint)
    outcomes: list[Outcome] = ranks.run(shard, {"checkpoint": checkpoint})
    assert [outcome.ran for outcome in outcomes] == [[], []]
    assert [outcome.calibration == expected for outcome in outcomes] == [True, True]
    assert_settled(checkpoint, expected)


@pytest.mark.parametrize("kind", ["whole", "part", "both"])
def test_files_of_other_settings_are_refused_and_kept(ranks: Ranks, kind: str, tmp_path: Path):
    checkpoint = tmp_path / "c.safetensors"
    if kind in ("whole", "both"):
        single([0], checkpoint=checkpoint, max_lag=1)
    if kind in ("part", "both"):
        single([1], checkpoint=part(checkpoint, 1, 3), max_lag=2)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    errors = ranks.errors(shard, {"checkpoint": checkpoint, "fail": FIVE})
    file = part(checkpoint, 1, 3) if kind == "part" else checkpoint
    lag = 2 if kind == "part" else 1
    for error in errors:
        assert isinstance(error, CalibrationError)
        assert f"cannot continue {str(file)!r}: max_lag is {lag} instead of 3" in str(error)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_files_that_do_not_go_together_are_refused(ranks: Ranks, tmp_path: Path):
    checkpoint, toy = tmp_path / "c.safetensors", Toy()
    single([0], checkpoint=checkpoint)
    shorter = silent(toy, lambda seed: sample(toy, STEPS[1:], latent=noise(seed)))
    file = part(checkpoint, 1, 3)
    calibrate(shorter, seeds=[1], max_lag=3, checkpoint=file, progress=False)
    for error in ranks.errors(shard, {"checkpoint": checkpoint}):
        assert isinstance(error, CalibrationError)
        assert f"cannot continue {str(file)!r}: evaluations is 5 instead of 6" in str(error)


def test_other_files_are_left_alone(ranks: Ranks, tmp_path: Path):
    checkpoint = tmp_path / "c.safetensors"
    others = [
        tmp_path / name
        for name in ("cc.rank0-of-2.safetensors", "c.rank0-of-2.json", "c.rank-of-2.safetensors")
    ]
    for other in others:
        other.write_text("mine")
    ranks.run(shard, {"checkpoint": checkpoint})
    assert sorted(tmp_path.iterdir()) == sorted([checkpoint, *others])


def test_a_damaged_part_is_named(tmp_path: Path):
    checkpoint = tmp_path / "c.safetensors"
    part(checkpoint, 1, 2).write_text("{")
    with pytest.raises(CalibrationError, match=r"c\.rank1-of-2\.safetensors' is not a calibration"):
        shard(checkpoint=checkpoint)
