"""What image models keep is foretold for every target, from shapes."""

import pytest
from kit.image_models import CASES
from kit.memory import at_size_of, calibrated, check_kept, guided_sampler

pytestmark = pytest.mark.filterwarnings("ignore::smoothcache_core.SmoothCacheWarning")


def test_what_a_dit_keeps_is_foretold_at_two_sizes():
    case = next(case for case in CASES if case.name == "sd3")
    model = case.model().requires_grad_(False)
    sampler = guided_sampler(case, model)
    known = calibrated(sampler)
    check_kept(sampler, known)
    channels, height, width = case.latent
    larger = guided_sampler(case, model, (channels, height, 2 * width))
    check_kept(larger, at_size_of(known, larger))
