"""How is the spoken-digits model that ships with smoothcache-audio made, and how good is it?

The package ships a class-conditional latent diffusion model that says the ten digits, built by
stable-audio-tools' own factory in the layout of the published Stable Audio Open folder, so that
caching can be tried on a model that was really trained, without a download and without a GPU. This
script makes all of it from speech that espeak-ng synthesises, on a CPU:

    python -m tools.train.spoken_digits all --minutes 60

needs about two hours, and runs six stages one after the other, each of which is
also a command of its own:

    data         thousands of clips of ten words in many voices, from fixed seeds
    classifier   a small network that names a digit; it grades everything that follows
    autoencoder  0.8 s of sound at 16 kHz to 10 x 40 latents and back
    decoder      the second half of the autoencoder some more, for clearer sound
    transformer  the diffusion transformer itself, on those latents; writes the model's folder
    check        draws 500 clips from the written folder, grades them, records the numbers

The classifier learns from voices that the model never hears. An interrupted `autoencoder` or
`transformer` goes on with `--resume`, and one that ended may be prolonged by `--resume` and more
`--minutes`. The stages pass their results on through the work folder. The numbers go to
`benchmarks/`. It needs stable-audio-tools, k-diffusion, torchaudio and espeakng-loader.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import sys
import tempfile
import time
import warnings
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter
from safetensors.torch import save as to_safetensors
from smoothcache_audio import classifier as spoken
from smoothcache_audio.loading import DIGITS, SHIPPED_GUIDANCE, SHIPPED_SIGMAS, WORD_SECONDS
from smoothcache_core.metrics import frechet_distance
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from tools.bench.records import Record, command, commit, hardware, now, versions
from tools.train.muon import Muon
from tools.train.spoken_words import (
    CLASSIFIER,
    CLIP,
    GENERATOR,
    HELD_OUT,
    REFERENCE,
    Clips,
    speak,
)
from tools.train.training import (
    Budget,
    Training,
    adam,
    fit,
    keep_row,
    kept_rows,
    learning_rate,
    new_training,
    save_atomically,
    write_atomically,
)

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "packages" / "audio" / "src" / "smoothcache_audio" / "data"
MODEL = DATA / "spoken-digits"
PER_WORD = {"generator": 560, "reference": 100, "classifier": 360, "held-out": 60}
SIGMAS: dict[str, Any] = dict(zip(("sigma_min", "sigma_max"), SHIPPED_SIGMAS, strict=True))
AUTOENCODER_BATCH, BATCH, COPIES = 12, 128, 2
KL_WEIGHT = 3e-4
SEED = 0
SAMPLE_SEEDS = tuple(range(10))  # of 50 samples each
NOTES = (
    "data: `seconds` is the time espeak-ng took; a word lasts equally long whichever it is.",
    "data: the clips that these weights learned from were made before the script fixed the seed of "
    "the noise in espeak-ng's voices too. A rerun makes clips that differ from them in that noise.",
    "accuracy_held_out: the classifier on voices that neither it nor the model learned from.",
    "accuracy_reference: the classifier on new clips in the voices that the model learned.",
    "autoencoder: it learned with 16 channels of latents. Six of them carried nothing, as their "
    "spread was below 0.02; they were taken out, the rest left as it was, before the next stages.",
    "autoencoder: the weight of the KL divergence was 1e-3 in its first 2565 steps, 3e-4 after.",
    "decoder: its first 1358 steps were without the loss in bands of the mel scale, at half the "
    "learning rate too; final_loss has that loss in it.",
    "decoder, transformer: they ran beside each other and beside other work on the machine.",
    "recognised: the part of the samples that the classifier names as they were asked for.",
    "frechet: distance of the classifier's features to those of the reference clips.",
)

app = App(
    name="python -m tools.train.spoken_digits",
    help=__doc__,
    help_format="plaintext",
    version_flags=[],
)
Work = Annotated[Path, Parameter(help="Folder for clips, checkpoints and numbers.")]
Threads = Annotated[int, Parameter(help="CPU threads to use.")]
Resume = Annotated[bool, Parameter(help="Go on from the last checkpoint.")]
DEFAULT_WORK = Path(tempfile.gettempdir()) / "spoken-digits-ckpt"


# --- the model, by its own library ---------------------------------------------------------------


@contextlib.contextmanager
def quietly() -> Generator[None]:
    """Swallow what stable-audio-tools prints, and its use of a deprecated weight_norm."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def configuration(scale: float | None = None) -> dict[str, Any]:
    """The committed configuration, with another scale of the latents where one is given."""
    config = json.loads((MODEL / "model_config.json").read_text())
    if scale is not None:
        config["model"]["pretransform"]["scale"] = scale
    return config


def new_model(scale: float | None = None) -> Any:
    """The model as stable-audio-tools' factory makes it, in eval mode even while it trains.

    In train mode the autoencoder would compute its activations twice to save memory.
    """
    with quietly():
        from stable_audio_tools.models.factory import create_model_from_config

        return create_model_from_config(configuration(scale)).eval()


def written_model() -> Any:
    """The model in the package's folder, in float32."""
    from safetensors.torch import load_file

    model = new_model()
    model.load_state_dict(load_file(MODEL / "model.safetensors"))
    return model.float().requires_grad_(False)


# --- data ----------------------------------------------------------------------------------------


@app.command(name="data")
def make_data(work: Work = DEFAULT_WORK, threads: Threads = 1) -> None:
    """Let espeak-ng say all clips (about five minutes)."""
    torch.set_num_threads(threads)
    for speakers in (GENERATOR, REFERENCE, CLASSIFIER, HELD_OUT):
        start = time.monotonic()
        clips = speak(speakers, PER_WORD[speakers.name])
        save_atomically(work / f"{speakers.name}.pt", asdict(clips))
        row: dict[str, Any] = {"stage": f"data-{speakers.name}", "clips": len(clips.digits)}
        row |= {"voices": speakers.voices(), "seed": speakers.seed}
        keep_row(work, row | {"seconds": round(time.monotonic() - start, 1)})


def load_clips(work: Path, name: str) -> Clips:
    """Clips that the `data` stage made."""
    return Clips(**torch.load(work / f"{name}.pt", weights_only=True))


def moved(waveforms: Tensor, samples: int) -> Tensor:
    """Clips moved later (or earlier, below 0) by some samples, with silence moved in."""
    padded = functional.pad(waveforms, (abs(samples), abs(samples)))
    first = abs(samples) - samples
    return padded[..., first : first + waveforms.shape[-1]]


# --- classifier ----------------------------------------------------------------------------------


def distorted(waveforms: Tensor) -> Tensor:
    """Clips as the classifier learns them: moved, louder or softer, coloured, in some noise."""
    count = len(waveforms)
    clips = moved(waveforms, int(torch.randint(-1600, 1601, ())))
    colour = 0.15 * torch.randn(count, 1, 9)
    colour[..., 4] += 1.0
    clips = functional.conv1d(clips[None], colour, padding=4, groups=count)[0]
    clips = clips * torch.empty(count, 1).uniform_(0.4, 1.2)
    level = torch.empty(count, 1).uniform_(-10, -4.5).exp()
    return clips + level * torch.randn_like(clips)


def accuracy(classifier: nn.Module, waveforms: Tensor, digits: Tensor) -> float:
    """Part of the clips that the classifier names as their labels say."""
    with torch.inference_mode():
        named = torch.cat([classifier(part).argmax(dim=1) for part in waveforms.split(250)])
    return (named == digits).float().mean().item()


def mel_filters(frequencies: int, bands: int) -> Tensor:
    """Triangular filters, (frequencies, bands), as the ear has them."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(frequencies, 60.0, spoken.SAMPLE_RATE / 2, bands, spoken.SAMPLE_RATE)


@app.command(name="classifier")
def train_classifier(
    steps: Annotated[int, Parameter(help="Training steps of 64 clips.")] = 2000,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Train the network that names digits (about two minutes) and write it into the package."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    clips = load_clips(work, CLASSIFIER.name)
    model = spoken.SpokenDigitClassifier()
    model.filters.copy_(mel_filters(*model.filters.shape))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    start = time.monotonic()
    for step in tqdm(range(steps), desc="classifier", mininterval=5):
        optimizer.param_groups[0]["lr"] = learning_rate(step / steps, peak=3e-3)
        index = torch.randint(len(clips.digits), (64,))
        guess = model(distorted(clips.waveforms[index]))
        loss = functional.cross_entropy(guess, clips.digits[index], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    write_classifier(model, load_clips(work, REFERENCE.name))
    keep_row(work, {"stage": "classifier", "steps": steps} | grades(work, start))


def write_classifier(model: spoken.SpokenDigitClassifier, reference: Clips) -> None:
    """Write weights and features of real clips, as the written weights give them."""
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    rounded = copy.deepcopy(model).requires_grad_(False)
    rounded.load_state_dict({name: value.float() for name, value in state.items()})
    state[spoken.REFERENCE] = rounded.features(reference.waveforms).half()
    write_atomically(DATA / spoken.CLASSIFIER_FILE, to_safetensors(state))


def grades(work: Path, start: float) -> dict[str, Any]:
    """Seconds since `start`, and how often the written classifier is right."""
    row: dict[str, Any] = {"seconds": round(time.monotonic() - start, 1)}
    for name in (CLASSIFIER.name, HELD_OUT.name, REFERENCE.name):
        clips = load_clips(work, name)
        part = accuracy(spoken.load(), clips.waveforms, clips.digits)
        row[f"accuracy_{name.replace('-', '_')}"] = round(part, 5)
    return row


# --- autoencoder ---------------------------------------------------------------------------------


def spectral_loss(guess: Tensor, truth: Tensor) -> Tensor:
    """Difference of magnitudes and of their logarithms, (B, N), mean over several resolutions."""
    losses = []
    for size in (128, 512, 1024):
        window = torch.hann_window(size)
        ours, theirs = (
            torch.stft(part, size, size // 4, window=window, return_complex=True).abs()
            / math.sqrt(size)
            for part in (guess, truth)
        )
        logarithms = functional.l1_loss((ours + 3e-3).log(), (theirs + 3e-3).log())
        losses.append(logarithms + 10 * functional.l1_loss(ours, theirs))
    return torch.stack(losses).mean()


def mel_loss(guess: Tensor, truth: Tensor) -> Tensor:
    """Difference of the logarithms in bands as the ear has them, which are narrow where vowels are.

    Args:
        guess: (B, N).
        truth: (B, N).
    """
    losses = []
    for size, bands in ((512, 40), (1024, 80)):
        window, filters = torch.hann_window(size), mel_filters(size // 2 + 1, bands)
        ours, theirs = (
            torch.stft(part, size, size // 4, window=window, return_complex=True).abs().mT
            @ filters
            / math.sqrt(size)
            for part in (guess, truth)
        )
        losses.append(functional.l1_loss((ours + 3e-3).log(), (theirs + 3e-3).log()))
    return torch.stack(losses).mean()


def sound_loss(guess: Tensor, truth: Tensor) -> Tensor:
    """How far a reconstruction is from its original, (B, N) each: to the ear and by sample."""
    return spectral_loss(guess, truth) + 10 * functional.l1_loss(guess, truth)


def autoencoder_loss(autoencoder: Any, waveforms: Tensor) -> Tensor:
    """Error of the reconstruction, and a small pull of the latents to a normal distribution."""
    latents, info = autoencoder.encode(waveforms[:, None], return_info=True)
    return sound_loss(autoencoder.decode(latents)[:, 0], waveforms) + KL_WEIGHT * info["kl"]


def decoder_loss(autoencoder: Any, waveforms: Tensor) -> Tensor:
    """Error of the reconstruction from latents that stay as they are."""
    with torch.no_grad():
        latents = autoencoder.encode(waveforms[:, None])
    back = autoencoder.decode(latents)[:, 0]
    return sound_loss(back, waveforms) + 3 * mel_loss(back, waveforms)


def crops(waveforms: Tensor, count: int) -> Tensor:
    """Random halves of random clips, (count, 6400), of random loudness."""
    size = CLIP // 2
    index = torch.randint(len(waveforms), (count,))
    first = int(torch.randint(waveforms.shape[1] - size + 1, ()))
    return waveforms[index, first : first + size] * torch.empty(len(index), 1).uniform_(0.8, 1.2)


@torch.inference_mode()
def rate_autoencoder(autoencoder: Any, clips: Clips) -> dict[str, float]:
    """How close reconstructions of clips are, and how often they are still understood."""
    latents, info = autoencoder.encode(clips.waveforms[:200, None], return_info=True)
    back = autoencoder.decode(latents)[:, 0]
    truth, digits = clips.waveforms[:200], clips.digits[:200]
    noise = (back - truth).square().sum(dim=1)
    return {
        "snr_db": round(float(10 * (truth.square().sum(dim=1) / noise).log10().mean()), 2),
        "spectral_loss": round(float(spectral_loss(back, truth)), 4),
        "kl_per_latent": round(float(info["kl"]) / latents.shape[1], 3),
        "recognised": round(accuracy(spoken.load(), back, digits), 4),
    }


@app.command(name="autoencoder")
def train_autoencoder(
    minutes: Annotated[float, Parameter(help="Training time, resumed time included.")] = 20.0,
    steps: Annotated[int, Parameter(help="Most steps of 12 half clips.")] = 20000,
    resume: Resume = False,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Train the autoencoder between sound and latents."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    model = new_model().pretransform.model.requires_grad_(True)
    training = new_training(model, new_model().pretransform.model, adam(model.parameters(), 2e-3))
    checkpoint = work / "autoencoder-training.pt"
    if resume:
        training.load(checkpoint)
    waveforms = load_clips(work, GENERATOR.name).waveforms
    budget = Budget(minutes, steps, before=training.seconds)

    def loss() -> Tensor:
        return autoencoder_loss(model, crops(waveforms, AUTOENCODER_BATCH))

    fit(training, budget, [loss], lambda: finish_autoencoder(training, waveforms, work))


def finish_autoencoder(training: Training, waveforms: Tensor, work: Path) -> None:
    """Measure the spread of the latents, hand the autoencoder on and record the numbers."""
    training.save(work / "autoencoder-training.pt")
    with torch.inference_mode():
        scale = training.average.encode(waveforms[:500, None]).std().item()
    hand_on(training, round(scale, 5), "autoencoder", work)


def hand_on(training: Training, scale: float, stage: str, work: Path) -> None:
    """Keep the averaged weights of an autoencoder for the next stages, and record the numbers."""
    state = {"scale": scale, "weights": training.average.state_dict()}
    save_atomically(work / "autoencoder.pt", state)
    row = {"stage": stage, "scale": scale, "batch": AUTOENCODER_BATCH} | training.numbers()
    keep_row(work, row | rate_autoencoder(training.average, load_clips(work, REFERENCE.name)))


@app.command(name="decoder")
def polish_decoder(
    minutes: Annotated[float, Parameter(help="Training time, resumed time included.")] = 55.0,
    steps: Annotated[int, Parameter(help="Most steps of 12 half clips.")] = 20000,
    resume: Resume = False,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Train the decoder alone some more; the latents stay as they are.

    The transformer learns from the latents only, so this may run beside it.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(SEED + 1)
    model, average = (load_model(work).pretransform for _ in range(2))
    scale, weights = model.scale, list(model.model.decoder.requires_grad_(True).parameters())
    training = new_training(model.model, average.model, adam(weights, 2e-3))
    checkpoint = work / "decoder-training.pt"
    if resume:
        training.load(checkpoint)
    waveforms = load_clips(work, GENERATOR.name).waveforms

    def loss() -> Tensor:
        return decoder_loss(model.model, crops(waveforms, AUTOENCODER_BATCH))

    def report() -> None:
        training.save(checkpoint)
        hand_on(training, scale, "decoder", work)
        export(work)

    budget = Budget(minutes, steps, before=training.seconds)
    fit(training, budget, [loss], report)


def load_model(work: Path) -> Any:
    """A new model around the trained autoencoder."""
    saved = torch.load(work / "autoencoder.pt", weights_only=True)
    model = new_model(saved["scale"])
    model.pretransform.load_state_dict(saved["weights"])
    return model


# --- transformer ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Latents:
    """What the transformer learns from: the autoencoder's distributions over latents.

    Attributes:
        mean: (N, 10, 40).
        spread: Standard deviations, (N, 10, 40).
        digits: (N,) int64.
        seconds: (N,) float32.
    """

    mean: Tensor
    spread: Tensor
    digits: Tensor
    seconds: Tensor

    def draw(self, count: int) -> tuple[Tensor, list[dict[str, Any]]]:
        """Draw latents, and what the conditioners are told of each."""
        index = torch.randint(len(self.digits), (count,))
        clean = self.mean[index] + self.spread[index] * torch.randn_like(self.mean[index])
        pairs = zip(self.digits[index].tolist(), self.seconds[index].tolist(), strict=True)
        return clean, [{"digit": digit, "seconds_total": length} for digit, length in pairs]


@torch.inference_mode()
def encode_clips(model: Any, clips: Clips) -> Latents:
    """Latents of all clips, each COPIES times at slightly different places."""
    means, spreads = [], []
    for number in tqdm(range(COPIES), desc="latents"):
        shifts = moved(clips.waveforms, 137 * number)
        for part in shifts.split(100):
            _, info = model.pretransform.model.encode(part[:, None], return_info=True)
            mean, width = info["pre_bottleneck_latents"].chunk(2, dim=1)
            means.append(mean)
            spreads.append(functional.softplus(width) + 1e-4)
    scale = model.pretransform.scale
    parts = torch.cat(means).clone() / scale, torch.cat(spreads).clone() / scale
    return Latents(*parts, clips.digits.repeat(COPIES), clips.seconds.repeat(COPIES))


def transformer_loss(model: Any, latents: Latents, size: int) -> Tensor:
    """Squared error of the velocity, as stable-audio-tools trains it, with even timesteps."""
    clean, conditions = latents.draw(size)
    t = (torch.randperm(size) + torch.rand(size)) / size
    alpha, sigma = ((math.pi / 2 * t).cos()[:, None, None], (math.pi / 2 * t).sin()[:, None, None])
    noise = torch.randn_like(clean)
    guess = model(
        clean * alpha + noise * sigma,
        t,
        cond=model.conditioner(conditions, "cpu"),
        cfg_dropout_prob=0.1,
        use_checkpointing=False,
    )
    return functional.mse_loss(guess, noise * alpha - clean * sigma)


def optimizers(model: Any, threads: int) -> dict[str, torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, Adam for all else that learns."""
    layers = model.model.model.transformer.layers
    inner = [weight for weight in layers.parameters() if weight.ndim == 2]
    known = {id(weight) for weight in inner}
    learning = (weight for weight in model.parameters() if weight.requires_grad)
    outer = [weight for weight in learning if id(weight) not in known]
    return {"muon": Muon(inner, peak=3e-3, threads=threads)} | adam(outer, peak=1.5e-3)


def draw(
    model: Any,
    per_digit: int,
    seed: int,
    steps: int,
    sampler: str,
    guidance: float = SHIPPED_GUIDANCE,
) -> tuple[Tensor, Tensor]:
    """Say each digit `per_digit` times: waveforms (B, 12800), and labels."""
    from stable_audio_tools.inference.generation import generate_diffusion_cond

    generate: Any = generate_diffusion_cond  # its annotations are narrower than what it takes
    digits = torch.arange(len(DIGITS)).repeat(per_digit)
    wanted = [{"digit": digit, "seconds_total": WORD_SECONDS} for digit in digits.tolist()]
    with quietly(), contextlib.redirect_stderr(io.StringIO()), torch.inference_mode():
        sound = generate(
            model,
            steps=steps,
            cfg_scale=guidance,
            conditioning=wanted,
            batch_size=len(wanted),
            sample_size=CLIP,
            seed=seed,
            device="cpu",
            sampler_type=sampler,
            **SIGMAS,
        )
    return sound[:, 0], digits


def report_transformer(training: Training, work: Path) -> None:
    """Checkpoint, write the model, say 50 digits with it, print the part that is recognised."""
    training.save(work / "transformer-training.pt")
    export(work)
    sound, digits = draw(written_model(), per_digit=5, seed=1, steps=25, sampler="dpmpp-2m")
    score = accuracy(spoken.load(), sound, digits)
    head = f"{training.seconds / 60:.1f} min, step {training.step}"
    tqdm.write(f"{head}: loss {training.loss:.4f}, recognised {score:.0%}", file=sys.stdout)
    sys.stdout.flush()
    save_atomically(work / "sound.pt", sound)
    row = {"stage": "transformer", "batch": BATCH} | training.numbers()
    keep_row(work, row | {"recognised_50_samples_25_steps": round(score, 4)})


def export(work: Path) -> None:
    """Write the model's folder from the newest autoencoder and transformer, if there is one.

    The configuration keeps the scale of the latents; the weights are in float16.
    """
    checkpoint = work / "transformer-training.pt"
    if not checkpoint.exists():
        return
    model = load_model(work)
    average = torch.load(checkpoint, weights_only=True)["average"]
    newest = model.state_dict()
    state = {name: newest[name] if "pretransform." in name else average[name] for name in newest}
    half = {name: value.half().contiguous() for name, value in state.items()}
    config = json.dumps(configuration(model.pretransform.scale), indent=2) + "\n"
    write_atomically(MODEL / "model_config.json", config.encode())
    write_atomically(MODEL / "model.safetensors", to_safetensors(half))


@app.command(name="transformer")
def train_transformer(
    minutes: Annotated[float, Parameter(help="Training time, resumed time included.")] = 60.0,
    steps: Annotated[int, Parameter(help="Most steps of 128 latents.")] = 20000,
    resume: Resume = False,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Train the diffusion transformer on the latents and write the model's folder."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    model = load_model(work)
    training = new_training(model, load_model(work), optimizers(model, threads))
    if resume:
        training.load(work / "transformer-training.pt")
    latents = encode_clips(model, load_clips(work, GENERATOR.name))
    budget = Budget(minutes, steps, before=training.seconds)

    def loss() -> Tensor:
        return transformer_loss(model, latents, BATCH // threads)

    torch.set_num_threads(1)
    fit(training, budget, [loss] * threads, lambda: report_transformer(training, work))


# --- check ---------------------------------------------------------------------------------------


def judge(sound: Tensor, digits: Tensor) -> dict[str, Any]:
    """Grade drawn clips by the classifier and against real ones."""
    classifier, real = spoken.load(), spoken.reference_features()
    real = real[torch.randperm(len(real), generator=torch.Generator().manual_seed(SEED))]
    half = len(real) // 2
    features = torch.cat([classifier.features(part) for part in sound.split(250)])
    named = classifier.head(features).argmax(dim=1)
    right = [int((named[digits == digit] == digit).sum()) for digit in range(len(DIGITS))]
    return {
        "samples": len(digits),
        "recognised": round((named == digits).float().mean().item(), 4),
        "recognised_per_digit": right,
        "frechet_to_real": round(frechet_distance(features, real), 4),
        "frechet_real_half_to_half": round(frechet_distance(real[:half], real[half:]), 4),
    }


@app.command(name="check")
def check(
    sampler: Annotated[str, Parameter(help="Sampler of k-diffusion.")] = "dpmpp-3m-sde",
    steps: Annotated[int, Parameter(help="Steps of each sample.")] = 100,
    guidance: Annotated[float, Parameter(help="Strength of the guidance.")] = SHIPPED_GUIDANCE,
    write: Annotated[bool, Parameter(help="Write the record.")] = True,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Draw 500 clips from the written folder, grade them and record all numbers."""
    torch.set_num_threads(threads)
    model, start = written_model(), time.monotonic()
    parts = [
        draw(model, 5, seed, steps, sampler, guidance) for seed in tqdm(SAMPLE_SEEDS, "samples")
    ]
    seconds = round(time.monotonic() - start, 1)
    sound, digits = (torch.cat(kind) for kind in zip(*parts, strict=True))
    save_atomically(work / f"samples-{sampler}.pt", {"sound": sound, "digits": digits})
    row = {"stage": f"check-{sampler}", "sampler": sampler, "steps": steps, "guidance": guidance}
    row |= SIGMAS | {"seconds_total": WORD_SECONDS, "seconds": seconds}
    row["folder_bytes"] = sum(path.stat().st_size for path in MODEL.iterdir())
    keep_row(work, row | judge(sound, digits))
    if write:
        write_record(work)


@app.command(name="record")
def write_record(work: Work = DEFAULT_WORK) -> None:
    """Write the numbers of all stages so far into `benchmarks/`."""
    packages = ("torch", "torchaudio", "stable-audio-tools", "k-diffusion", "espeakng-loader")
    parts = (GENERATOR, REFERENCE, CLASSIFIER, HELD_OUT)
    record = Record(
        what="train",
        modality="audio",
        question="How was the shipped spoken-digits model trained, and how good is it?",
        command=command(),
        date=now(),
        hardware="CPU",
        versions=versions(*packages),
        commit=commit(),
        seeds={f"data {part.name}": [part.seed] for part in parts}
        | {"training": [SEED], "samples": SAMPLE_SEEDS},
        settings={"processor": hardware(torch.device("cpu")), "dtype of weights": "float16"},
        rows=kept_rows(work),
        notes=NOTES,
    )
    print(record.save())


@app.command(name="all")
def train_all(
    minutes: Annotated[float, Parameter(help="Training time of the transformer.")] = 60.0,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Run the six stages one after the other."""
    make_data(work=work)
    train_classifier(work=work, threads=threads)
    train_autoencoder(work=work, threads=threads)
    polish_decoder(work=work, threads=threads)
    train_transformer(minutes=minutes, work=work, threads=threads)
    check(work=work, threads=threads)


if __name__ == "__main__":
    app()
