"""The study of routers, on a few updates."""

import pytest

from tools.bench.models.image import IMAGE
from tools.bench.records import Record
from tools.bench.studies import routers

pytestmark = pytest.mark.filterwarnings(
    "ignore:only 1 sample was calibrated:smoothcache_core.SmoothCacheWarning"
)


@pytest.fixture(scope="module")
def record() -> Record:
    return routers.record(
        IMAGE,
        routers.Settings(
            steps=8,
            updates=8,
            batch=1,
            sparsities=(0.01,),
            samples=1,
            seeds=(1000,),
            calibration_samples=1,
            progress=False,
        ),
    )


def test_every_router_is_compared_at_its_own_compute(record: Record):
    rows = [row for row in record.rows if row["policy"] != "update"]
    trained = ("harmonica", "learning-to-cache")
    cuts = [i for i, row in enumerate(rows) if "cut" in row["setting"]]
    heads = [i for i, row in enumerate(rows) if row["policy"] in trained and i not in cuts]
    assert len(heads) == 2
    for begin, end in zip(heads, [*heads[1:], cuts[0]], strict=True):
        own, *others = rows[begin:end]
        assert own["seconds"] > 0.0
        planned = [row for row in others if row["policy"] in routers.TARGETS]
        assert all(row["compute"] <= own["compute"] + 1e-6 for row in planned)


def test_all_routers_are_cut_to_what_fora_computes(record: Record):
    cuts = [i for i, row in enumerate(record.rows) if "cut" in row.get("setting", "")]
    assert [record.rows[i]["policy"] for i in cuts] == ["harmonica", "learning-to-cache"]
    (fora,) = [row for row in record.rows[cuts[-1] :] if row["policy"] == "interval"]
    assert all(record.rows[i]["compute"] <= fora["compute"] + 1e-6 for i in cuts)


def test_seeds_of_trainings_and_evaluations_are_apart(record: Record):
    assert not set(record.seeds["training"]) & set(record.seeds["evaluation"])


def test_the_price_of_an_update_is_told(record: Record):
    (row,) = [row for row in record.rows if row["policy"] == "update"]
    assert row["ratio"] > 0.0
