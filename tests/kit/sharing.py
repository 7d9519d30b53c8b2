"""Schedules to share in tests: a slower and a faster one of one model."""

from smoothcache_core import Schedule
from smoothcache_core.schedule import Cost, Fingerprint, Front, Prediction

HALF = Schedule(
    evaluations=4,
    rows={"denoiser": (1, 0, 1, 0)},
    cost=Cost(total=10, sites=(), output_bytes=8),
    prediction=Prediction(error=0.01, low=0.005, high=0.02),
    fingerprint=Fingerprint(
        model_class="Toy_Denoiser", solver="euler|x", guidance={"guidance_scale": 4.0}
    ),
)
QUARTER = HALF.changed(
    rows={"denoiser": (1, 0, 0, 0)}, prediction=Prediction(error=0.1), fingerprint=Fingerprint()
)
FRONT = Front(schedules={"half": HALF, "quarter": QUARTER}, base_model='me/"base"')
