"""What audio models keep is foretold for every target, from shapes."""

import pytest
from kit.audio_models import CASES
from kit.memory import at_size_of, calibrated, check_kept, guided_sampler

pytestmark = pytest.mark.filterwarnings("ignore::smoothcache_core.SmoothCacheWarning")


def test_what_stable_audio_keeps_is_foretold_at_two_lengths():
    case = next(case for case in CASES if case.name == "stable-audio-3")
    model = case.model().requires_grad_(False)
    sampler = guided_sampler(case, model)
    known = calibrated(sampler)
    check_kept(sampler, known)
    channels, length = case.latent
    longer = guided_sampler(case, model, (channels, length // 2))
    check_kept(longer, at_size_of(known, longer))
