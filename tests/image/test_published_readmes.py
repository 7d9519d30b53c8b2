"""The READMEs of SmoothCache and of Cache Diffusion run with their import line changed.

Their code stands here as it is published, but for the names of models, files and devices: small
models take the place of theirs.
"""

import json
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from kit.facebook_dit import install
from kit.zoo.entry import Entry
from kit.zoo.pictures import SIZE, XL, pooled, sd_words, unet, xl
from smoothcache_core.errors import SmoothCacheWarning

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning",  # of diffusers, under numpy 2
    "ignore:`torch_dtype` is deprecated:FutureWarning",  # as the README has it
)

SDXL = Entry(
    name="SDXL",
    build=lambda: xl(
        unet=unet(
            **XL | {"transformer_layers_per_block": (1, 1, 1)},
            block_out_channels=(4, 8, 8),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        )
    ),
    arguments=lambda: {**sd_words(), **pooled(8), **SIZE},
)

ROW = [1, 0, 0, 1, 0, 0, 1, 0, 0, 1]

DIFFUSERS = """
import json
import torch
from diffusers import DiTPipeline, DPMSolverMultistepScheduler

# Import SmoothCacheHelper
from smoothcache_core.compat.smoothcache import DiffuserCacheHelper

# Load the DiT pipeline and scheduler
pipe = DiTPipeline.from_pretrained(MODEL, torch_dtype=torch.float32)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
pipe = pipe.to("cpu")

# Initialize the DiffuserCacheHelper with the model
with open(SCHEDULE, "r") as f:
    schedule = json.load(f)
cache_helper = DiffuserCacheHelper(pipe.transformer, schedule=schedule)

# Enable the caching helper
cache_helper.enable()
# Prepare the input
words = ["fox"]
class_ids = pipe.get_label_ids(words)

# Generate images with the pipeline
generator = torch.manual_seed(33)
image = pipe(class_labels=class_ids, num_inference_steps=10, generator=generator).images[0]

# Restore the original forward method and disable the helper
# disable() should be paired up with enable()
cache_helper.disable()
"""

CALIBRATION = """
from diffusers import DiTPipeline, DPMSolverMultistepScheduler
from smoothcache_core.compat.smoothcache import DiffuserCalibrationHelper

pipe = DiTPipeline.from_pretrained(MODEL)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
calibration_helper = DiffuserCalibrationHelper(
    model=pipe.transformer,
    calibration_lookahead=3,
    calibration_threshold=0.35,
    schedule_length=10,
    log_file=SCHEDULE,
)
calibration_helper.enable()
class_ids = pipe.get_label_ids(["fox", "hen", "owl"])
images = pipe(class_labels=class_ids, num_inference_steps=10).images
calibration_helper.disable()
"""

FACEBOOK = """
import torch

torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
from torchvision.utils import save_image
from diffusion import create_diffusion
from diffusers.models import AutoencoderKL
from download import find_model
from models import DiT_models
import argparse
from smoothcache_core.compat.smoothcache import DiTCacheHelper  # Import DiTCacheHelper
import json

# Setup PyTorch:
torch.manual_seed(args.seed)
torch.set_grad_enabled(False)
device = "cuda" if torch.cuda.is_available() else "cpu"

if args.ckpt is None:
    assert (
        args.model == "DiT-XL/2"
    ), "Only DiT-XL/2 models are available for auto-download."
    assert args.image_size in [256, 512]
    assert args.num_classes == 1000

# Load model:
latent_size = args.image_size // 8
model = DiT_models[args.model](
    input_size=latent_size, num_classes=args.num_classes
).to(device)
ckpt_path = args.ckpt or f"DiT-XL-2-{args.image_size}x{args.image_size}.pt"
state_dict = find_model(ckpt_path)
model.load_state_dict(state_dict)
model.eval()  # important!
with open(SCHEDULE, "r") as f:
    schedule = json.load(f)
cache_helper = DiTCacheHelper(model, schedule=schedule)

# number of timesteps should be consistent with provided schedules
diffusion = create_diffusion(str(len(schedule[cache_helper.components_to_wrap[0]])))

# Enable the caching helper
cache_helper.enable()

# Sample images:
samples = diffusion.p_sample_loop(
    model.forward_with_cfg,
    z.shape,
    z,
    clip_denoised=False,
    model_kwargs=model_kwargs,
    progress=True,
    device=device,
)
samples, _ = samples.chunk(2, dim=0)  # Remove null class samples
samples = vae.decode(samples / 0.18215).sample

# Disable the caching helper after sampling
cache_helper.disable()
# Save and display images:
save_image(samples, PICTURE, nrow=4, normalize=True, value_range=(-1, 1))
"""


CACHE_DIFFUSION = """
from smoothcache_core.compat import cachify

SDXL_DEFAULT_CONFIG = [
    {
        "wildcard_or_filter_func": lambda name: "up_blocks.2" not in name,
        "select_cache_step_func": lambda step: (step % 2) != 0,
    }
]

cachify.prepare(pipe, num_inference_steps, SDXL_DEFAULT_CONFIG)
"""


@pytest.fixture
def schedule_file(tmp_path: Path) -> Path:
    path = tmp_path / "10-N-3-threshold-0.35.json"
    path.write_text(json.dumps({"attn": ROW, "mlp": ROW}))
    return path


def test_the_readme_for_diffusers_runs_and_caches(dit_folder: Path, schedule_file: Path):
    names: dict[str, Any] = {"MODEL": str(dit_folder), "SCHEDULE": str(schedule_file)}
    calls: list[str] = []
    watched = DIFFUSERS.replace(
        "# Enable the caching helper", "watch(pipe.transformer)\n# Enable the caching helper"
    )

    def watch(transformer: Any) -> None:
        for kind in ("attn1", "ff"):
            module = getattr(transformer.transformer_blocks[0], kind)
            inner = module.to_out[0] if kind == "attn1" else module.net[2]
            inner.register_forward_hook(lambda *_, kind=kind: calls.append(kind))

    with pytest.warns(SmoothCacheWarning, match="'attn' for 'attn1' and 'mlp' for 'ff'"):
        exec(watched, names | {"watch": watch})
    assert (calls.count("attn1"), calls.count("ff")) == (sum(ROW), sum(ROW))


def test_the_calibration_example_writes_a_schedule_that_the_helper_takes(
    dit_folder: Path, tmp_path: Path
):
    path = tmp_path / "calibrated.json"
    names: dict[str, Any] = {"MODEL": str(dit_folder), "SCHEDULE": str(path)}
    exec(CALIBRATION, dict(names))
    rows = json.loads(path.read_text())
    assert list(rows) == ["attn1"]
    assert len(rows["attn1"]) == 10
    assert rows["attn1"][0] == rows["attn1"][-1] == 1
    exec(DIFFUSERS, dict(names))


@pytest.fixture
def facebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The modules of facebook's code, around a small model."""
    tf32 = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield install(monkeypatch)
    torch.set_grad_enabled(True)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32


def test_the_readme_for_facebooks_code_runs_and_caches(
    facebook: Any, schedule_file: Path, tmp_path: Path
):
    calls: list[str] = []
    facebook.blocks[1].mlp.fc1.register_forward_hook(lambda *_: calls.append("mlp"))
    z = torch.randn(4, 4, 8, 8)
    labels = torch.tensor([1, 2, 10, 10])
    names: dict[str, Any] = {
        "SCHEDULE": str(schedule_file),
        "PICTURE": str(tmp_path / "sample.png"),
        "args": Namespace(seed=0, ckpt=None, model="DiT-XL/2", image_size=256, num_classes=1000),
        "z": z,
        "model_kwargs": {"y": labels, "cfg_scale": 4.0},
        "vae": AutoencoderKL(block_out_channels=(32,)),
    }
    exec(FACEBOOK, names)
    assert len(calls) == sum(ROW)
    assert (tmp_path / "sample.png").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_readme_of_cache_diffusion_runs_and_caches():
    entry = SDXL
    pipe, steps, calls = entry.pipeline(), 10, list[str]()
    for name in ("down_blocks.0", "up_blocks.1", "up_blocks.2"):
        inner = pipe.unet.get_submodule(f"{name}.resnets.0")
        inner.register_forward_hook(lambda *_, name=name: calls.append(name))
    names: dict[str, Any] = {"pipe": pipe, "num_inference_steps": steps}
    exec(CACHE_DIFFUSION, names)
    images = [entry.sample(pipe, 0) for _ in range(2)]
    assert [calls.count(each) for each in sorted(set(calls))] == [10, 10, 20]
    assert torch.equal(*images)
    names["cachify"].disable(pipe)
