"""Which of several shared schedules is taken."""

import pytest
from smoothcache_core.errors import ScheduleError
from smoothcache_core.schedule.sharing.choosing import Wish, chosen
from smoothcache_core.schedule.sharing.index import Entry, Estimate, Index, Measured


def entry(
    name: str, compute: float | None, error: float | None, measured: float | None = None
) -> Entry:
    return Entry(
        name=name,
        sha256="0" * 64,
        compute=compute,
        predicted=None if error is None else Estimate(error=error),
        measured=None if measured is None else Measured(error=measured, samples=4),
    )


FRONT = Index(
    schedules=(
        entry("slow", 0.75, 0.001),
        entry("half", 0.5, 0.01),
        entry("worse", 0.5, 0.002, measured=0.03),  # promised more than it kept
        entry("fast", 0.25, 0.1),
        entry("other", None, None),
    )
)


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        (Wish(speedup=1.0), "slow"),
        (Wish(speedup=2.0), "half"),
        (Wish(speedup=2.1), "fast"),
        (Wish(compute=0.6), "half"),
        (Wish(compute=0.25), "fast"),
        (Wish(error=0.05), "half"),
        (Wish(error=0.01), "half"),
        (Wish(error=0.009), "slow"),
        (Wish(error=1.0), "fast"),
        (Wish(name="other"), "other"),
    ],
)
def test_the_least_error_of_a_budget_or_the_least_compute_of_an_error(wish: Wish, name: str):
    assert chosen(FRONT, wish, "here").name == name


def test_where_no_error_is_known_what_computes_more_is_taken():
    unknown = Index(schedules=(entry("a", 0.3, None), entry("b", 0.4, None)))
    assert chosen(unknown, Wish(speedup=2.0), "here").name == "b"


def test_without_a_wish_there_is_one_only():
    assert chosen(Index(schedules=FRONT.schedules[:1]), Wish(), "here").name == "slow"
    with pytest.raises(ScheduleError, match=r"here has several .* slow \(1.33x, error 0.001 pred"):
        chosen(FRONT, Wish(), "here")


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (Wish(speedup=5.0), "no schedule of a speed-up of at least 5; it has slow"),
        (
            Wish(compute=0.2),
            "no schedule that computes at most 0.2; it .*worse .*0.03 measured",
        ),
        (Wish(error=1e-4), "no schedule whose error is known to be at most 0.0001"),
        (Wish(name="none"), "no schedule of the name 'none'; .*fast .*, other$"),
    ],
)
def test_where_none_suits_all_are_listed(wish: Wish, message: str):
    with pytest.raises(ScheduleError, match=message):
        chosen(FRONT, wish, "here")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"speedup": 2.0, "compute": 0.5}, r"by one of these, not by \['speedup', 'compute'\]"),
        ({"speedup": 0.5}, "speedup is at least 1"),
        ({"speedup": float("nan")}, "speedup is at least 1"),
        ({"compute": 0.0}, r"compute is in \(0, 1\]"),
        ({"error": 0.0}, "error is above 0"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(given: dict[str, float], message: str):
    with pytest.raises(ScheduleError, match=message):
        Wish(**given)  # pyright: ignore[reportArgumentType] no name among them
