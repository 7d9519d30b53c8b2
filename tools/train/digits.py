"""How is the small digits model that ships with smoothcache-image made, and how good is it?

The package ships a class-conditional diffusion transformer (DiT) that draws handwritten digits,
so that caching can be tried on a model that was really trained, without a download and without a
GPU. This script makes all of it from the 1797 digits bundled with scikit-learn, on a CPU:

    python -m tools.train.digits all --minutes 60

needs somewhat over an hour (the shipped transformer had 5326 steps, 67 minutes on a busy machine),
and runs five stages one after the other, each of which is also a command of its own:

    classifier   a small network that names a digit; it grades everything that follows
    autoencoder  32 x 32 pictures to 4 x 8 x 8 latents and back (diffusers AutoencoderKL)
    decoder      the second half of the autoencoder some more, for sharper pictures
    transformer  the DiT itself, on those latents; writes the pipeline folder
    check        draws 1000 digits from the written folder, grades them, records the numbers

`flow` makes a twin of it, a rectified flow, starting from the weights of the shipped DiT:

    python -m tools.train.digits flow --minutes 40
    python -m tools.train.digits check --model flow

One fifth of the digits is kept out of all training. An interrupted `transformer` or `flow` goes on
with `--resume`, and one that ended may be prolonged by `--resume` and more `--minutes`. The stages
pass their results on through the work folder. The numbers go to `benchmarks/`.
"""

from __future__ import annotations

import copy
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from cyclopts import App, Parameter
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from diffusers.pipelines.dit.pipeline_dit import DiTPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from safetensors.torch import save as to_safetensors
from sklearn.model_selection import train_test_split
from smoothcache_core.metrics import frechet_distance
from smoothcache_image.classifier import (
    CLASSIFIER_FILE,
    DigitClassifier,
    load_digit_classifier,
    real_digits,
)
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from tools.bench.records import command
from tools.train.training import (
    Budget,
    averaging,
    keep_row,
    kept_rows,
    learning_rate,
    save_atomically,
    write_atomically,
)

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "packages" / "image" / "src" / "smoothcache_image" / "data"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NULL_LABEL = 1000  # DiTPipeline hard-codes this label for "no class", whatever the model
TRAIN_STEPS = 1000  # steps of the noise schedule
GUIDANCE = 1.5
BATCH = 128
SEED = 0

AUTOENCODER = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "block_out_channels": (16, 32, 32),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 8,
    "sample_size": 32,
}
TRANSFORMER = {
    "num_attention_heads": 4,
    "attention_head_dim": 32,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 10,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": NULL_LABEL,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}
SCHEDULER = {
    "num_train_timesteps": TRAIN_STEPS,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "prediction_type": "epsilon",
}
FLOW_SCHEDULER = {  # of first order this is Euler's method on the straight path
    "num_train_timesteps": TRAIN_STEPS,
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "flow_shift": 1.0,
    "solver_order": 1,
    "algorithm_type": "dpmsolver++",
}

app = App(
    name="python -m tools.train.digits", help=__doc__, help_format="plaintext", version_flags=[]
)
Work = Annotated[Path, Parameter(help="Folder for checkpoints and numbers between stages.")]
Threads = Annotated[int, Parameter(help="CPU threads to use.")]
DEFAULT_WORK = Path(tempfile.gettempdir()) / "digits-ckpt"


# --- the digits ----------------------------------------------------------------------------------


def split_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Real digits as (train pictures, train labels, test pictures, test labels), [0, 1]."""
    images, labels = real_digits()
    train, test = train_test_split(
        torch.arange(len(labels)).numpy(), test_size=0.2, random_state=SEED, stratify=labels.numpy()
    )
    return images[train], labels[train], images[test], labels[test]


def shifted(images: Tensor, down: int, right: int) -> Tensor:
    """Move pictures by whole pixels, filling with paper (0)."""
    room = max(abs(down), abs(right))
    padded = functional.pad(images, (room, room, room, room))
    height, width = images.shape[-2:]
    return padded[..., room - down : room - down + height, room - right : room - right + width]


def random_batch(images: Tensor, size: int, reach: int) -> tuple[Tensor, Tensor]:
    """Random pictures moved by up to `reach` pixels, and the indices they came from."""
    index = torch.randint(len(images), (size,))
    down, right = torch.randint(-reach, reach + 1, (2,)).tolist()
    return shifted(images[index], down, right), index


def to_colour(images: Tensor) -> Tensor:
    """(B, 1, 32, 32) in [0, 1] to the (B, 3, 32, 32) in [-1, 1] that the autoencoder takes."""
    return images.expand(-1, 3, -1, -1) * 2 - 1


def accuracy(classifier: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    """Part of the pictures that the classifier names as their labels say."""
    with torch.inference_mode():
        return (classifier(images).argmax(dim=1) == labels).float().mean().item()


# --- classifier ----------------------------------------------------------------------------------


@app.command(name="classifier")
def train_classifier(
    steps: Annotated[int, Parameter(help="Training steps of 64 pictures.")] = 2500,
    work: Work = DEFAULT_WORK,
    threads: Threads = 3,
) -> None:
    """Train the network that names digits (about a minute) and write it into the package."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    images, labels, test_images, test_labels = split_digits()
    model = DigitClassifier()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    start = time.monotonic()
    for step in tqdm(range(steps), desc="classifier"):
        optimizer.param_groups[0]["lr"] = learning_rate(step / steps, peak=2e-3)
        batch, index = random_batch(images, 64, reach=3)
        batch = (batch + 0.05 * torch.randn_like(batch)).clamp(0, 1)
        loss = functional.cross_entropy(model(batch), labels[index], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    write_atomically(DATA / CLASSIFIER_FILE, to_safetensors(state))
    row = {"stage": "classifier", "steps": steps, "seconds": round(time.monotonic() - start, 1)}
    row["train_digits"], row["test_digits"] = len(labels), len(test_labels)
    row["test_accuracy"] = round(accuracy(load_digit_classifier(), test_images, test_labels), 5)
    keep_row(work, row)


# --- autoencoder ---------------------------------------------------------------------------------


def encode(autoencoder: AutoencoderKL, images: Tensor) -> Any:
    """The distribution over latents of pictures (B, 3, 32, 32) in [-1, 1]."""
    return cast("Any", autoencoder.encode(images)).latent_dist


def decode(autoencoder: AutoencoderKL, latents: Tensor) -> Tensor:
    """Pictures (B, 3, 32, 32), about in [-1, 1], of latents (B, 4, 8, 8)."""
    return cast("Any", autoencoder.decode(cast("Any", latents))).sample


def scaling(autoencoder: AutoencoderKL) -> float:
    """The factor that gives latents unit spread."""
    return cast("Any", autoencoder.config).scaling_factor


def psnr(autoencoder: AutoencoderKL, images: Tensor) -> float:
    """Mean over pictures of the reconstruction's peak signal-to-noise ratio, in dB."""
    with torch.inference_mode():
        latents = encode(autoencoder, to_colour(images)).mode()
        back = (decode(autoencoder, latents) / 2 + 0.5).clamp(0, 1)
        error = (back - images).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).mean().item()


def autoencoder_loss(autoencoder: AutoencoderKL, images: Tensor) -> Tensor:
    """Squared error of the reconstruction, and a very small pull of the latents to a normal."""
    posterior = encode(autoencoder, images)
    back = decode(autoencoder, posterior.sample())
    return functional.mse_loss(back, images) + 5e-5 * posterior.kl().mean() / 256


def fit_autoencoder(
    model: AutoencoderKL, part: nn.Module, budget: Budget, size: int
) -> dict[str, Any]:
    """Train `part` of the autoencoder on batches of `size` digits; return the numbers."""
    images, _, test_images, _ = split_digits()
    model.requires_grad_(False)
    weights = list(part.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(weights, weight_decay=0.0)
    step, average = 0, 0.0
    with tqdm(total=budget.steps, desc="autoencoder") as bar:
        while (progress := budget.progress(step)) < 1:
            optimizer.param_groups[0]["lr"] = learning_rate(progress, peak=2e-3)
            loss = autoencoder_loss(model, to_colour(random_batch(images, size, reach=2)[0]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            step += 1
            average += max(0.01, 1 / step) * (loss.item() - average)
            bar.update()
            bar.set_postfix(loss=f"{average:.5f}", refresh=False)
    row = {"batch": size, "steps": step, "seconds": round(budget.seconds(), 1)}
    row["final_loss"] = round(average, 6)
    return row | {"test_psnr_db": round(psnr(model, test_images), 2)}


@app.command(name="autoencoder")
def train_autoencoder(
    minutes: Annotated[float, Parameter(help="Training time.")] = 3.0,
    steps: Annotated[int, Parameter(help="Most steps of 64 pictures.")] = 3000,
    work: Work = DEFAULT_WORK,
    threads: Threads = 3,
) -> None:
    """Train the autoencoder between pictures and latents."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    model = AutoencoderKL(**AUTOENCODER)
    row = fit_autoencoder(model, model, Budget(minutes, steps), size=64)
    with torch.inference_mode():
        spread = encode(model, to_colour(split_digits()[0])).mode().std().item()
    state = {"scaling_factor": 1 / spread, "weights": model.state_dict()}
    save_atomically(work / "autoencoder.pt", state)
    keep_row(work, {"stage": "autoencoder", "scaling_factor": round(1 / spread, 5)} | row)


def load_autoencoder(work: Path) -> AutoencoderKL:
    """The trained autoencoder in float32, with the scale that gives latents unit spread."""
    saved = torch.load(work / "autoencoder.pt", weights_only=True)
    model = AutoencoderKL(**AUTOENCODER, scaling_factor=round(saved["scaling_factor"], 5))
    model.load_state_dict(saved["weights"])
    return model.eval().requires_grad_(False)


@app.command(name="decoder")
def polish_decoder(
    minutes: Annotated[float, Parameter(help="Training time.")] = 5.0,
    steps: Annotated[int, Parameter(help="Most steps of 32 pictures.")] = 5000,
    work: Work = DEFAULT_WORK,
    threads: Threads = 3,
) -> None:
    """Train the decoder alone some more; the latents stay as they are.

    The transformer learns from the latents only, so this may run beside it.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    model = load_autoencoder(work)
    row = fit_autoencoder(model, model.decoder, Budget(minutes, steps), size=32)
    state = {"scaling_factor": scaling(model), "weights": model.state_dict()}
    save_atomically(work / "autoencoder.pt", state)
    keep_row(work, {"stage": "decoder"} | row)


# --- transformer ---------------------------------------------------------------------------------


def new_transformer() -> DiTTransformer2DModel:
    """A DiT with the initial weights of its paper: each block starts as the identity.

    The model stays in eval mode even while it trains. In train mode diffusers would drop class
    labels in each block on its own; `noisy_batch` drops them for the whole model instead.
    """
    model = DiTTransformer2DModel(**TRANSFORMER).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    patch: Any = model.pos_embed.proj
    nn.init.xavier_uniform_(patch.weight.view(patch.weight.shape[0], -1))
    nn.init.zeros_(patch.bias)
    blocks: Any = model.transformer_blocks
    for block in blocks:
        nn.init.zeros_(block.norm1.linear.weight)
        table = block.norm1.emb.class_embedder.embedding_table.weight
        nn.init.normal_(table, std=0.02)
        nn.init.zeros_(table[len(NAMES) : NULL_LABEL])  # never used: zeros compress well
        embedder = block.norm1.emb.timestep_embedder
        nn.init.normal_(embedder.linear_1.weight, std=0.02)
        nn.init.normal_(embedder.linear_2.weight, std=0.02)
    nn.init.zeros_(model.proj_out_1.weight)
    nn.init.zeros_(model.proj_out_2.weight)
    return model


def encode_digits(autoencoder: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Latents of the training digits, each in nine copies moved by up to one pixel."""
    images, labels, _, _ = split_digits()
    moves = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
    latents = []
    with torch.inference_mode():
        for down, right in tqdm(moves, desc="latents"):
            pictures = to_colour(shifted(images, down, right))
            latents.append(encode(autoencoder, pictures).mode())
    return torch.cat(latents).clone() * scaling(autoencoder), labels.repeat(len(moves))


def noisy_batch(clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw (noisy latents, time steps, the noise to predict)."""
    signal = DDIMScheduler(**SCHEDULER).alphas_cumprod
    when = torch.randint(TRAIN_STEPS, (len(clean),))
    noise = torch.randn_like(clean)
    part = signal[when].view(-1, 1, 1, 1)
    return part.sqrt() * clean + (1 - part).sqrt() * noise, when, noise


def flow_batch(clean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Draw (points between latents and noise, time steps, the velocity to predict)."""
    part = torch.rand(len(clean))
    noise = torch.randn_like(clean)
    noisy = torch.lerp(clean, noise, part.view(-1, 1, 1, 1))
    return noisy, part * TRAIN_STEPS, noise - clean


@dataclass(frozen=True)
class Recipe:
    """What tells the two models apart."""

    name: str
    folder: Path
    draw: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    scheduler: Callable[[], Any]
    peak: float  # highest learning rate

    def batch(self, latents: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        """Draw (noisy latents, time steps, labels with 10 % of them dropped, target)."""
        index = torch.randint(len(latents), (BATCH,))
        noisy, when, target = self.draw(latents[index])
        dropped = torch.rand(BATCH) < 0.1
        return noisy, when, labels[index].masked_fill(dropped, NULL_LABEL), target


DIFFUSION = Recipe(
    "transformer", DATA / "digits-dit", noisy_batch, lambda: DDIMScheduler(**SCHEDULER), 1e-3
)
FLOW = Recipe(
    "flow",
    DATA / "digits-flow",
    flow_batch,
    lambda: DPMSolverMultistepScheduler(**FLOW_SCHEDULER),
    5e-4,
)


@dataclass
class Training:
    """Everything that a checkpoint of the transformer stage holds."""

    model: DiTTransformer2DModel
    average: DiTTransformer2DModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    loss: float = 1.0

    def __post_init__(self) -> None:
        self.following = averaging(self.average)

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        numbers = {"step": self.step, "seconds": self.seconds, "loss": self.loss}
        parts = {name: getattr(self, name).state_dict() for name in ("model", "average")}
        state = {"optimizer": self.optimizer.state_dict(), "random": torch.get_rng_state()}
        save_atomically(path, numbers | parts | state)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(path, weights_only=True)
        for name in ("model", "average", "optimizer"):
            getattr(self, name).load_state_dict(saved[name])
        self.step, self.seconds, self.loss = saved["step"], saved["seconds"], saved["loss"]
        self.following.optimization_step = self.step
        torch.set_rng_state(saved["random"])


def new_training(model: DiTTransformer2DModel) -> Training:
    """A transformer at its first step."""
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    return Training(model, copy.deepcopy(model).requires_grad_(False), optimizer)


def train_one_step(training: Training, batch: tuple[Tensor, ...], rate: float) -> None:
    """One step of predicting the noise, or the velocity."""
    noisy, when, labels, target = batch
    training.optimizer.param_groups[0]["lr"] = rate
    guess = training.model(noisy, timestep=when, class_labels=labels).sample
    loss = functional.mse_loss(guess, target)
    training.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.step += 1
    training.loss += 0.01 * (loss.item() - training.loss)
    training.following.step(training.model.parameters())


def draw(pipeline: DiTPipeline, per_class: int, seed: int, steps: int) -> tuple[Tensor, Tensor]:
    """Draw `per_class` digits of each kind: pictures (B, 3, 32, 32) in [0, 1], and labels."""
    labels = torch.arange(len(NAMES)).repeat(per_class)
    pipeline.set_progress_bar_config(disable=True)
    output: Any = pipeline(
        labels.tolist(),
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        num_inference_steps=steps,
        output_type="pt",
    )
    return output.images, labels


def report(training: Training, recipe: Recipe, autoencoder: AutoencoderKL, work: Path) -> float:
    """Checkpoint, draw 200 digits, print and return the part that is recognised."""
    training.save(work / f"{recipe.name}.pt")
    pipeline = DiTPipeline(training.average, autoencoder, recipe.scheduler())
    images, labels = draw(pipeline, per_class=20, seed=1, steps=25)
    score = accuracy(load_digit_classifier(), images, labels)
    minutes = training.seconds / 60
    head = f"{minutes:.1f} min, step {training.step}"
    tqdm.write(f"{head}: loss {training.loss:.4f}, recognised {score:.1%}", file=sys.stdout)
    sys.stdout.flush()
    return score


def export(transformer: DiTTransformer2DModel, recipe: Recipe, autoencoder: AutoencoderKL) -> None:
    """Write the pipeline folder, weights in float16, each file atomically."""
    parts = {
        "transformer": copy.deepcopy(transformer).half(),
        "vae": copy.deepcopy(autoencoder).half(),
        "scheduler": recipe.scheduler(),
    }
    index: dict[str, Any] = {"_class_name": "DiTPipeline"}
    index["_diffusers_version"] = version("diffusers")
    index["id2label"] = {str(number): name for number, name in enumerate(NAMES)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in parts.items():
            part.save_pretrained(Path(scratch) / name)
            index[name] = ["diffusers", type(part).__name__]
        for path in sorted(Path(scratch).rglob("*.*")):
            write_atomically(recipe.folder / path.relative_to(scratch), path.read_bytes())
    text = json.dumps(index, indent=2) + "\n"
    write_atomically(recipe.folder / "model_index.json", text.encode())


def fit(
    training: Training, recipe: Recipe, autoencoder: AutoencoderKL, budget: Budget, work: Path
) -> None:
    """Train until the budget is used up; save every 5 minutes; export as soon as usable."""
    latents, labels = encode_digits(autoencoder)
    last, exported = budget.seconds(), False
    with tqdm(total=budget.steps, initial=training.step, desc=recipe.name, mininterval=5) as bar:
        while (progress := budget.progress(training.step)) < 1:
            batch = recipe.batch(latents, labels)
            train_one_step(training, batch, learning_rate(progress, peak=recipe.peak))
            training.seconds = budget.seconds()
            bar.update()
            bar.set_postfix(loss=f"{training.loss:.4f}", refresh=False)
            if training.seconds - last > 300:
                last = training.seconds
                if report(training, recipe, autoencoder, work) > 0.9 and not exported:
                    export(training.average, recipe, load_autoencoder(work))
                    exported = True


def train(
    recipe: Recipe,
    model: DiTTransformer2DModel,
    budget: tuple[float, int],
    resume: bool,
    work: Path,
    threads: int,
) -> None:
    """Train `model` by `recipe`, write its pipeline folder and record the numbers."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    autoencoder, training = load_autoencoder(work), new_training(model)
    if resume and (work / f"{recipe.name}.pt").exists():
        training.load(work / f"{recipe.name}.pt")
    fit(training, recipe, autoencoder, Budget(*budget, before=training.seconds), work)
    score = report(training, recipe, autoencoder, work)
    export(training.average, recipe, load_autoencoder(work))
    row = {"stage": recipe.name, "steps": training.step, "batch": BATCH, "threads": threads}
    row |= {"seconds": round(training.seconds, 1), "final_loss": round(training.loss, 5)}
    row["parameters"] = sum(value.numel() for value in training.model.parameters())
    keep_row(work, row | {"recognised_200_samples_25_steps": round(score, 4)})


@app.command(name="transformer")
def train_transformer(
    minutes: Annotated[float, Parameter(help="Training time, resumed time included.")] = 60.0,
    steps: Annotated[int, Parameter(help="Most steps of 128 latents.")] = 20000,
    resume: Annotated[bool, Parameter(help="Go on from the last checkpoint.")] = False,
    work: Work = DEFAULT_WORK,
    threads: Threads = 3,
) -> None:
    """Train the diffusion transformer on the latents and write the pipeline folder."""
    torch.manual_seed(SEED)
    train(DIFFUSION, new_transformer(), (minutes, steps), resume, work, threads)


@app.command(name="flow")
def train_flow(
    minutes: Annotated[float, Parameter(help="Training time, resumed time included.")] = 40.0,
    steps: Annotated[int, Parameter(help="Most steps of 128 latents.")] = 20000,
    resume: Annotated[bool, Parameter(help="Go on from the last checkpoint.")] = False,
    work: Work = DEFAULT_WORK,
    threads: Threads = 3,
) -> None:
    """Train the shipped transformer further, into a rectified flow, and write its folder."""
    folder = DIFFUSION.folder / "transformer"
    model = DiTTransformer2DModel.from_pretrained(folder, local_files_only=True)
    train(FLOW, model.float().eval(), (minutes, steps), resume, work, threads)


# --- check ---------------------------------------------------------------------------------------


def provenance(seeds: list[int]) -> dict[str, Any]:
    """What a reader needs in order to judge or repeat the numbers."""
    git = ["git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    packages = ("torch", "diffusers", "scikit-learn", "safetensors")
    return {
        "command": command(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "hardware": f"CPU only, {platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version()} | {n: version(n) for n in packages},
        "commit": commit or None,
        "seeds": {"training": SEED, "samples": seeds},
    }


def judge(images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Grade drawn digits by the classifier and against the real ones."""
    classifier = load_digit_classifier()
    real, _ = real_digits()
    mixed = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(SEED))]
    with torch.inference_mode():
        drawn, wild = classifier.features(images), classifier.features(mixed)
        named = classifier(images).argmax(dim=1)
    half = len(wild) // 2
    right = [(named[labels == digit] == digit).sum().item() for digit in range(len(NAMES))]
    return {
        "samples": len(labels),
        "recognised": round((named == labels).float().mean().item(), 4),
        "recognised_per_digit": right,
        "frechet_to_real": round(frechet_distance(drawn, wild), 4),
        "frechet_real_half_to_half": round(frechet_distance(wild[:half], wild[half:]), 4),
        "real_recognised": round(accuracy(classifier, *real_digits()), 4),
    }


def save_grid(images: Tensor, path: Path) -> None:
    """Write the first 100 pictures as a 10 x 10 PNG."""
    from PIL import Image

    tiles = images[:100].mean(dim=1).view(10, 10, 32, 32).permute(0, 2, 1, 3).reshape(320, 320)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((tiles * 255).byte().numpy()).resize((640, 640)).save(path)


@app.command(name="check")
def check(
    model: Annotated[str, Parameter(help="transformer or flow.")] = "transformer",
    steps: Annotated[int, Parameter(help="Steps of each sample.")] = 50,
    work: Work = DEFAULT_WORK,
    threads: Threads = 3,
) -> None:
    """Draw 1000 digits from the written folder, grade them and record all numbers."""
    torch.set_num_threads(threads)
    recipe = {"transformer": DIFFUSION, "flow": FLOW}[model]
    pipeline = DiTPipeline.from_pretrained(recipe.folder, local_files_only=True)
    seeds = [0, 1, 2, 3, 4]
    start = time.monotonic()
    parts = [draw(pipeline, 20, seed, steps) for seed in tqdm(seeds, desc="samples")]
    seconds = round(time.monotonic() - start, 1)
    images, labels = (torch.cat(kind) for kind in zip(*parts, strict=True))
    save_grid(images, work / f"grid-{model}.png")
    size = sum(path.stat().st_size for path in recipe.folder.rglob("*") if path.is_file())
    row = {"stage": f"check-{model}", "scheduler": type(pipeline.scheduler).__name__}
    row |= {"steps": steps, "guidance": GUIDANCE}
    row |= {"dtype": str(pipeline.transformer.dtype), "seconds": seconds, "folder_bytes": size}
    row["test_psnr_db"] = round(psnr(pipeline.vae, split_digits()[2]), 2)
    keep_row(work, row | judge(images, labels))
    own = [row for row in kept_rows(work) if ("flow" in row["stage"]) == (model == "flow")]
    result = provenance(seeds) | {"rows": own}
    what = "train-image-flow" if model == "flow" else "train-image"
    name = f"{what}-cpu-{datetime.now(UTC):%Y%m%d}.json"
    content = json.dumps(result, indent=2) + "\n"
    write_atomically(REPOSITORY / "benchmarks" / name, content.encode())


@app.command(name="all")
def train_all(
    minutes: Annotated[float, Parameter(help="Training time of the transformer.")] = 60.0,
    work: Work = DEFAULT_WORK,
    threads: Threads = 3,
) -> None:
    """Run the five stages one after the other."""
    train_classifier(work=work, threads=threads)
    train_autoencoder(work=work, threads=threads)
    polish_decoder(work=work, threads=threads)
    train_transformer(minutes=minutes, work=work, threads=threads)
    check(work=work, threads=threads)


if __name__ == "__main__":
    app()
