import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from matplotlib.figure import Figure
from smoothcache_core import Calibration, Report, Schedule
from smoothcache_core.adapters import Site
from smoothcache_core.errors import EvaluationError
from smoothcache_core.planning import Point
from smoothcache_core.reports import MetricResult, ReportRow
from smoothcache_core.reports.folder import write_report
from smoothcache_core.reports.text import to_markdown
from smoothcache_core.schedule import Cost, Fingerprint, Prediction, Provenance, SiteCost

PNG = b"\x89PNG\r\n\x1a\n"
SITES = tuple(Site(path=f"blocks.{i}.attn", kind="attn", block=i) for i in range(3))
COST = Cost(
    total=4,
    sites=tuple(SiteCost(path=s.path, kind=s.kind, block=s.block, macs=1, bytes=4) for s in SITES),
)
SCHEDULE = Schedule(
    evaluations=4,
    rows={"attn": (1, 0, 0, 1)},
    source=Provenance(name="smooth", settings={"alpha": 0.123456789, "per": "kind"}, seeds=(1, 2)),
)


def metric(*samples: float, spread: float = 0.25) -> MetricResult:
    return MetricResult(mean=sum(samples) / len(samples), spread=spread, samples=samples)


def row(policy: str = "smooth", **values: Any) -> ReportRow:
    known: dict[str, Any] = {
        "ours": False,
        "seconds": 0.5,
        "seconds_each": (0.4, 0.5, 0.75),
        "speedup": 1.9,
        "rel_l2": 0.125,
        "rel_l2_spread": 0.25,
        "metrics": {"rel_l2": metric(0.125, 0.125)},
    }
    return ReportRow(policy=policy, **(known | values))


PLAIN = row(
    "plain", compute=1.0, speedup=1.0, of_limit=1.0, rel_l2=0.0, rel_l2_spread=0.0, metrics={}
)


def report(*rows: ReportRow, **values: Any) -> Report:
    known: dict[str, Any] = {
        "seeds": (5, 6, 7, 11),
        "calibration_seeds": (1, 2),
        "warmup": 1,
        "num_samples": 4,
        "sample_shape": (3, 8, 8),
        "sample_dtype": "float32",
        "fingerprint": Fingerprint(model_class="Toy", adapter="toy", evaluations=4),
        "device": "cpu",
        "versions": {"torch": "2.11"},
        "date": datetime(2026, 11, 21, 4, 5, 6, 789, tzinfo=UTC),
    }
    return Report(rows=rows or (PLAIN, row(compute=0.5)), **(known | values))


def calibration() -> Calibration:
    totals = np.full((3, 1, 1, 4), 0.5)
    totals[..., -1] = np.nan
    return Calibration(
        sites=SITES,
        branches=("",),
        totals=totals,
        squares=totals**2,
        samples=1,
        seeds=(1,),
        fingerprint=Fingerprint(model_class="Toy"),
        cost=COST,
    )


# ---------------------------------------------------------------------------- files

numbers = st.floats(allow_nan=False)
names = st.text(min_size=1, max_size=5)


@settings(max_examples=40)
@given(
    values=st.lists(numbers, min_size=1, max_size=4),
    spread=numbers,
    metrics=st.lists(names, max_size=2, unique=True),
    summaries=st.dictionaries(names, numbers, max_size=2),
    source=st.none() | st.just(SCHEDULE.source),
    prediction=st.none() | st.builds(Prediction, error=st.floats(0, 1), measured=st.booleans()),
)
def test_report_survives_json_exactly(
    values: list[float],
    spread: float,
    metrics: list[str],
    summaries: dict[str, float],
    source: Provenance | None,
    prediction: Prediction | None,
):
    result = MetricResult(mean=values[0], spread=spread, samples=tuple(values))
    before = report(
        row(
            rel_l2=values[0],
            rel_l2_spread=spread,
            psnr_db=values[-1],
            metrics=dict.fromkeys(metrics, result),
            summaries=summaries,
            source=source,
            prediction=prediction,
        )
    )
    after = Report.model_validate_json(before.to_json())
    assert after.rows == before.rows
    assert after == before


def test_saved_report_is_loaded_as_it_was(tmp_path: Path):
    before = report()
    path = before.save(tmp_path / "deep" / "report.json")
    assert Report.load(path) == before
    assert Report.load(path).model_dump() == before.model_dump()


def test_json_is_strict_and_numbers_that_it_cannot_hold_are_strings():
    values = metric(math.inf, -math.inf, math.nan, 2.0, spread=math.inf)
    text = report(row(rel_l2=math.nan, metrics={"odd": values})).to_json()

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not a JSON file")

    data = json.loads(text, parse_constant=refuse)
    assert data["rows"][0]["rel_l2"] == "nan"
    assert data["rows"][0]["metrics"]["odd"] == {
        "mean": "nan",
        "spread": "inf",
        "samples": ["inf", "-inf", "nan", 2.0],
    }
    again = Report.model_validate_json(text)
    assert math.isnan(again.rows[0].rel_l2)
    assert again.rows[0].metrics["odd"].samples[:2] == (math.inf, -math.inf)
    assert again.to_json() == text


def test_rows_have_the_keys_of_benchmark_records():
    data = json.loads(report().to_json())
    wanted = (
        "policy ours solver evaluations compute seconds speedup of_limit rel_l2 rel_l2_spread "
        "psnr_db frechet accuracy bytes_peak"
    )
    assert set(wanted.split()) <= set(data["rows"][0])
    assert {"seeds", "versions", "date", "fingerprint", "calibration_seeds"} <= set(data)


def test_lists_of_plain_values_are_one_line_each():
    text = report(row(metrics={"many": metric(*[0.5] * 100)})).to_json()
    assert f'"samples": [{", ".join(["0.5"] * 100)}]' in text
    assert '"seeds": [5, 6, 7, 11],\n' in text


def test_reports_are_equal_if_what_is_saved_is():
    assert report() == report()
    assert report() != report(PLAIN)
    assert report(row(rel_l2=math.nan)) == report(row(rel_l2=math.nan))
    assert report() != "report"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a JSON file"),
        ("[]", "invalid report: Input should be"),
        ('{"format": "smoothcache-schedule"}', "invalid report: format: Input should be"),
        ('{"version": 2}', "invalid report: version: Input should be 1"),
    ],
)
def test_load_refuses_what_is_not_a_report(tmp_path: Path, content: str, message: str):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=message) as caught:
        Report.load(path)
    assert "report.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_load_refuses_unknown_keys(tmp_path: Path):
    path = report().save(tmp_path / "report.json")
    path.write_text(path.read_text().replace('"policy": "smooth"', '"policy": "a", "sped": 1', 1))
    with pytest.raises(EvaluationError, match=r"rows\.1\.sped: Extra inputs"):
        Report.load(path)


def test_load_refuses_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(EvaluationError, match=r"cannot read report .*none\.json.*No such file"):
        Report.load(tmp_path / "none.json")


def test_row_is_found_by_policy():
    assert report().row("smooth").compute == 0.5
    with pytest.raises(EvaluationError, match=r"no policy 'fora'; it has \['plain', 'smooth'\]"):
        report().row("fora")


# ---------------------------------------------------------------------------- Markdown


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_table_shows_every_row():
    cached = row(
        compute=0.5,
        of_limit=0.95,
        metrics={"rel_l2": metric(0.125, 0.125), "psnr_db": metric(31.5, 34.5, spread=2.0)},
        summaries={"accuracy": 0.9375},
        bytes_peak=3 * 2**20,
    )
    titles, _, plain, smooth = table(to_markdown(report(PLAIN, cached)))
    assert titles == [
        "policy", "compute", "seconds", "speedup", "of limit", "rel_l2", "psnr_db", "accuracy",
        "cached",
    ]  # fmt: skip
    assert plain == ["plain", "1.000", "0.500", "1.00x", "1.00", "-", "-", "-", "0 B"]
    assert smooth == [
        "smooth", "0.500", "0.500", "1.90x", "0.95", "0.125 +- 0.25", "33 +- 2", "0.9375", "3 MiB",
    ]  # fmt: skip


def test_table_leaves_out_what_no_row_knows():
    titles = table(to_markdown(report(row(metrics={}))))[0]
    assert titles == ["policy", "seconds", "speedup", "cached"]


def test_table_shows_what_was_predicted_and_how_certain_the_error_is():
    known = {"source": SCHEDULE.source, "rel_l2_low": 0.1, "rel_l2_high": 0.15}
    rows = (
        row("plain", rel_l2_low=0.0, rel_l2_high=0.0),
        row("planned", prediction=Prediction(error=0.11), **known),
        row("fitted", prediction=Prediction(error=0.1234, measured=True), **known),
    )
    text = to_markdown(report(*rows, calibration_samples=16))
    titles, _, *cells = table(text)
    found = [titles.index("predicted"), titles.index("95 % of rel_l2")]
    assert [[line[index] for index in found] for line in cells] == [
        ["-", "-"], ["0.11", "0.1 to 0.15"], ["0.123 (measured)", "0.1 to 0.15"],
    ]  # fmt: skip
    assert "- predicted: rel_l2 as the schedule promised it" in text
    assert "- calibration samples: 16" in text.splitlines()
    assert "promised" not in to_markdown(report())


def test_table_lines_have_one_width():
    lines = [line for line in to_markdown(report()).splitlines() if line.startswith("|")]
    assert len(lines) == 4
    assert len({len(line) for line in lines}) == 1


def test_names_cannot_break_the_table():
    rows = table(to_markdown(report(row("a | b\nc", metrics={"x|y": metric(1.0)}))))
    assert len({line.count("|") - line.count("\\|") for line in map("|".join, rows)}) == 1
    assert "a \\" in rows[2][0]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.00012345, "0.000123"), (2.0, "2.00"), (123.4, "123"), (4321.0, "4321")],
)
def test_seconds_are_shown_to_three_digits(seconds: float, shown: str):
    assert table(to_markdown(report(row(seconds=seconds))))[2][1] == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1024, "1 KiB"), (5 * 2**29, "2.5 GiB"), (2**45, "3.28e+04 GiB")],
)
def test_bytes_are_shown_in_the_unit_that_fits(count: int, shown: str):
    assert table(to_markdown(report(row(bytes_peak=count))))[2][-1] == shown


def test_markdown_tells_the_settings():
    cached = row(source=SCHEDULE.source, computed=24, reused=8, recomputed=3)
    fewer = row(policy="fewer", source=Provenance(name="fewer-steps", settings={"steps": 2}))
    text = to_markdown(report(PLAIN, cached, fewer, plain_repeat_rel_l2=0.0))
    for line in (
        "- fewer: fewer-steps(steps=2)",
        "# Cached against uncached: Toy",
        "- denoiser: Toy, adapter 'toy'",
        "- evaluations: 4",
        "- samples: 4 of shape (3, 8, 8), float32",
        "- evaluation seeds: 5 to 7, 11",
        "- calibration seeds: 1 to 2",
        "- untimed runs of every policy: 1",
        "- rel_l2 of a repeated plain run: 0",
        "- versions: torch 2.11",
        "- date: 2026-11-21 04:05 UTC",
        "- plain: computes everything, without a cache",
        "- smooth: smooth(alpha=0.1235, per=kind); 24 outputs computed, 8 reused, "
        "3 of the computed were to be reused",
    ):
        assert line in text.splitlines()
    assert "None" not in text


# ---------------------------------------------------------------------------- write


def test_write_makes_all_files_and_shows_every_picture(tmp_path: Path):
    extra = Figure()
    extra.subplots().plot([1, 2])
    written = write_report(
        report(),
        tmp_path / "out",
        schedules={"smooth": SCHEDULE},
        calibration=calibration(),
        pictures={"samples.png": PNG + b"...", "more.png": extra},
    )
    names = [path.name for path in written]
    assert names == [
        "report.json", "smooth.json", "compute-and-error.png", "error-curves.png",
        "skip-map-smooth.png", "samples.png", "more.png", "report.md", "index.html",
    ]  # fmt: skip
    assert set(written) == {path for path in (tmp_path / "out").rglob("*.*") if path.is_file()}
    assert Report.load(written[0]) == report()
    assert Schedule.load(tmp_path / "out/schedules/smooth.json") == SCHEDULE
    assert all(path.read_bytes().startswith(PNG) for path in written[2:-2])
    assert (tmp_path / "out" / "samples.png").read_bytes() == PNG + b"..."
    text = written[-2].read_text()
    assert [text.count(f"]({name})") for name in names] == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert text.startswith(to_markdown(report()))


def test_write_draws_predictions_and_plans_and_peers(tmp_path: Path):
    rows = (PLAIN, row(compute=0.5, prediction=Prediction(error=0.1)))
    point = Point(name="denoiser", schedule=SCHEDULE, compute=0.5, error=0.1, best=True)
    alone = write_report(report(*rows), tmp_path / "alone")
    written = write_report(
        report(*rows),
        tmp_path / "all",
        points=[point],
        chosen=point,
        peers=[row("fora", compute=0.3)],
    )
    names = ["report.json", "compute-and-error.png", "predicted-and-measured.png", "report.md"]
    names.append("index.html")
    assert [path.name for path in alone] == [path.name for path in written] == names
    assert alone[1].read_bytes() != written[1].read_bytes()
    assert alone[2].read_bytes() == written[2].read_bytes()
    assert "](predicted-and-measured.png)" in written[-2].read_text()


def test_write_needs_neither_calibration_nor_cost(tmp_path: Path):
    rows = (row(compute=None),)
    written = write_report(report(*rows), tmp_path, schedules={"smooth": SCHEDULE})
    assert [path.name for path in written] == [
        "report.json", "smooth.json", "skip-map-smooth.png", "report.md", "index.html",
    ]  # fmt: skip


def test_maps_of_similar_names_are_files_of_their_own(tmp_path: Path):
    schedules = dict.fromkeys(["a b", "a/b", "A-B", "../x"], SCHEDULE)
    written = write_report(report(row(compute=None)), tmp_path, schedules=schedules)
    stems = ["a-b", "a-b-2", "a-b-3", "x"]
    assert [path.name for path in written[1:5]] == [f"{stem}.json" for stem in stems]
    assert [path.name for path in written[5:-2]] == [f"skip-map-{stem}.png" for stem in stems]
    assert {path.parent for path in written} == {tmp_path, tmp_path / "schedules"}


@pytest.mark.parametrize("name", ["../a.png", "a/b.png", "report.md", "skip-map-smooth.png", ""])
def test_write_refuses_other_names_before_it_writes(tmp_path: Path, name: str):
    with pytest.raises(EvaluationError, match="a file name of its own"):
        write_report(report(), tmp_path, schedules={"smooth": SCHEDULE}, pictures={name: PNG})
    assert list(tmp_path.iterdir()) == []


def test_a_repr_has_a_line_for_each_policy():
    lines = repr(report(PLAIN, row(rel_l2=0.123456))).splitlines()
    assert len(lines) == 3
    assert "relative L2 0.123" in lines[2]
