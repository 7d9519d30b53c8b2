"""Every denoiser class that the installed diffusers exports, without an adapter of ours.

The list takes ten minutes: `pytest -m zoo`. A few of different make are always tried.
"""

from functools import partial

import pytest
from kit.adapter_contract import Case
from kit.denoiser_contract import keeps_contract
from kit.denoisers import DENOISERS, NOT_DENOISERS, exported
from kit.image_models import CASES
from smoothcache_core.adapters.sites import names_of
from smoothcache_core.discovering import structure_of

from tools.models import PAGE, row_of, rows_of

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLE = (
    "AuraFlowTransformer2DModel",  # two lists of blocks
    "CogVideoXTransformer3DModel",  # image and text are one sequence inside
    "FluxTransformer2DModel",  # fused blocks
    "HiDreamImageTransformer2DModel",  # blocks inside blocks
    "LTXVideoTransformer3DModel",
    "UNet2DConditionModel",
)
TRIED = [name for name, each in DENOISERS.items() if not each.reason]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_denoiser_that_nobody_knows_keeps_the_contract(name: str):
    kept = keeps_contract(DENOISERS[name])
    assert kept.sites > 1
    assert kept.whole


@pytest.mark.zoo
@pytest.mark.parametrize("name", TRIED)
def test_every_denoiser_keeps_the_contract_and_stands_in_the_table(name: str):
    assert row_of(name) == rows_of(PAGE.read_text())[name]


def test_every_class_that_diffusers_exports_stands_in_the_table():
    rows = rows_of(PAGE.read_text())
    lacking = sorted({*exported(), *DENOISERS} - rows.keys())
    assert lacking == [], "run `python -m tools.models` with these names"
    untested = [name for name in exported() if name not in {*DENOISERS, *NOT_DENOISERS}]
    assert untested == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_is_found_does_what_the_sites_of_a_known_class_do(case: Case):
    model = case.model()
    run, own = partial(case.run, model), case.adapter
    (latent,) = names_of(own.latent)
    found = structure_of(model, run, latent=latent, timestep=own.timestep)
    ours = {(site.path, site.target, site.inputs) for site in case.adapter.sites(model)}
    theirs = {(s.path, s.target, s.inputs) for s in found.adapter.sites(model)}
    assert theirs == ours
