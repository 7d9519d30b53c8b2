"""How is the small model of moving digits in smoothcache-video made, and how good is it?

The package ships Open-Sora's denoiser (STDiT3) at a small size, which draws clips of handwritten
digits that move to the left, right, up or down, so that caching can be tried on a video model that
was really trained, without a download and without a GPU. This script makes all of it from the 1797
digits bundled with scikit-learn, on a CPU:

    python -m tools.train.moving_digits all --minutes 90

runs four stages one after the other, each of which is also a command of its own:

    classifier   a small network that names a digit and its direction; it grades what follows
    autoencoder  32 x 32 frames to 4 x 8 x 8 latents and back (diffusers AutoencoderKL), beginning
                 with that of the digits model of smoothcache-image
    transformer  the denoiser itself, a rectified flow on those latents; writes the pipeline folder
    check        draws 400 clips from the written folder, grades them, records the numbers

The text encoder is a T5 of random weights, as its texts have 16 words: what it gives differs from
text to text, and that is all the denoiser needs. One fifth of the digits is kept out of all
training. An interrupted `transformer` goes on with `--resume`, and one that ended may be prolonged
by `--resume` and more `--minutes`.
"""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import torch
from cyclopts import App, Parameter
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save as to_safetensors
from smoothcache_core.metrics import frechet_distance
from smoothcache_image.loading import digits_folder
from smoothcache_video.classifier import CLASSIFIER_FILE, ClipClassifier, load_clip_classifier
from smoothcache_video.clips import (
    DIGITS,
    DIRECTIONS,
    FPS,
    FRAMES,
    SIDE,
    Clips,
    moving,
    prompt_of,
    real_clips,
    real_digits,
)
from smoothcache_video.open_sora import OpenSoraPipeline, RectifiedFlowScheduler, STDiT3
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from tools.bench.records import Record, command, commit, hardware, now, versions
from tools.train.muon import Muon
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
DATA = REPOSITORY / "packages" / "video" / "src" / "smoothcache_video" / "data"
FOLDER = DATA / "moving-digits"
WORDS = ("<pad>", "</s>", "<unk>", "a", "moving", *DIGITS, *DIRECTIONS)
TEXT_LENGTH = 5  # "a", a digit, "moving", a direction, and the end
TEXT_ENCODER = {
    "vocab_size": len(WORDS),
    "d_model": 32,
    "d_kv": 8,
    "num_heads": 4,
    "d_ff": 64,
    "num_layers": 1,
    "num_decoder_layers": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
}
TRANSFORMER: Mapping[str, Any] = {
    "in_channels": 4,
    "hidden_size": 128,
    "depth": 4,
    "num_heads": 4,
    "pred_sigma": False,
    "caption_channels": TEXT_ENCODER["d_model"],
    "model_max_length": TEXT_LENGTH,
    "input_sq_size": SIDE,
    "max_frames": FRAMES,
}
GUIDANCE, STEPS = 2.0, 30
BATCH, COPIES = 16, 2
SEED = 0
SAMPLE_SEEDS = list(range(10))
NOTES = [
    "The classifier and the denoiser learned from the same four fifths of the digits; the real "
    "clips that the classifier is graded on are of the last fifth."
]

app = App(
    name="python -m tools.train.moving_digits",
    help=__doc__,
    help_format="plaintext",
    version_flags=[],
)
Work = Annotated[Path, Parameter(help="Folder for checkpoints and numbers between stages.")]
Threads = Annotated[int, Parameter(help="CPU threads to use.")]
DEFAULT_WORK = Path(tempfile.gettempdir()) / "moving-digits-ckpt"


# --- clips ---------------------------------------------------------------------------------------


def split_digits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Pictures (N, 1, 8, 8) and labels of the digits to train on, and of those kept out."""
    from sklearn.model_selection import train_test_split

    pictures, labels = real_digits()
    train, test = train_test_split(
        torch.arange(len(labels)).numpy(), test_size=0.2, random_state=SEED, stratify=labels.numpy()
    )
    return (pictures[train], labels[train]), (pictures[test], labels[test])


def clips_of(pictures: Tensor, labels: Tensor, directions: Tensor) -> Clips:
    """Clips of given digits at random places."""
    return Clips(videos=moving(pictures, directions), digits=labels, directions=directions)


def random_clips(pictures: Tensor, labels: Tensor, count: int) -> Clips:
    """Clips of random digits in random directions at random places."""
    index = torch.randint(len(labels), (count,))
    return clips_of(pictures[index], labels[index], torch.randint(len(DIRECTIONS), (count,)))


def every_clip(pictures: Tensor, labels: Tensor, copies: int) -> Clips:
    """Every digit in every direction, `copies` times at other places."""
    times = copies * len(DIRECTIONS)
    directions = torch.arange(len(DIRECTIONS)).repeat_interleave(len(labels)).repeat(copies)
    return clips_of(pictures.repeat(times, 1, 1, 1), labels.repeat(times), directions)


@torch.inference_mode()
def named(classifier: ClipClassifier, clips: Clips) -> tuple[float, float]:
    """Part of the clips whose digit, and whose direction, the classifier names right."""
    scores = [classifier(part) for part in clips.videos.split(100)]
    digits, directions = (torch.cat(each) for each in zip(*scores, strict=True))
    right = (digits.argmax(1) == clips.digits), (directions.argmax(1) == clips.directions)
    return right[0].float().mean().item(), right[1].float().mean().item()


# --- classifier ----------------------------------------------------------------------------------


@app.command(name="classifier")
def train_classifier(
    steps: Annotated[int, Parameter(help="Training steps of 32 clips.")] = 2500,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Train the network that names digits and directions and write it into the package."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    train, test = split_digits()
    model, start = ClipClassifier(), time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    for step in tqdm(range(steps), desc="classifier"):
        optimizer.param_groups[0]["lr"] = learning_rate(step / steps, peak=2e-3)
        clips = random_clips(*train, 32)
        noisy = (clips.videos + 0.05 * torch.randn_like(clips.videos)).clamp(0, 1)
        digits, directions = model(noisy)
        loss = functional.cross_entropy(digits, clips.digits, label_smoothing=0.05)
        loss = loss + functional.cross_entropy(directions, clips.directions, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    write_atomically(DATA / CLASSIFIER_FILE, to_safetensors(state))
    digits_right, directions_right = named(load_clip_classifier(), every_clip(*test, copies=1))
    row = {"stage": "classifier", "steps": steps, "seconds": round(time.monotonic() - start, 1)}
    row["test_clips"] = len(DIRECTIONS) * len(test[1])
    row["test_digits_named"] = round(digits_right, 4)
    keep_row(work, row | {"test_directions_named": round(directions_right, 4)})


# --- autoencoder ---------------------------------------------------------------------------------


def to_colour(videos: Tensor) -> Tensor:
    """(B, F, 1, H, W) in [0, 1] to the frames (B * F, 3, H, W) in [-1, 1] that it takes."""
    return videos.flatten(0, 1).expand(-1, 3, -1, -1) * 2 - 1


def autoencoder_loss(model: AutoencoderKL, frames: Tensor) -> Tensor:
    """Squared error of the reconstruction, and a very small pull of the latents to a normal."""
    posterior = cast("Any", model.encode(frames)).latent_dist
    back = cast("Any", model.decode(posterior.sample())).sample
    return functional.mse_loss(back, frames) + 5e-5 * posterior.kl().mean() / 256


@torch.inference_mode()
def psnr(model: AutoencoderKL, videos: Tensor) -> float:
    """Mean over frames of the reconstruction's peak signal-to-noise ratio, in dB."""
    frames = to_colour(videos)
    latents = cast("Any", model.encode(frames)).latent_dist.mode()
    back = cast("Any", model.decode(latents)).sample
    error = ((back - frames) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * error.log10()).mean().item()


def new_autoencoder(scale: float | None = None) -> AutoencoderKL:
    """The autoencoder of the digits model of smoothcache-image, with the scale of its latents."""
    folder = digits_folder() / "vae"
    shipped = AutoencoderKL.from_pretrained(folder, local_files_only=True)
    config = {k: v for k, v in shipped.config.items() if not k.startswith("_")}  # no paths
    model = AutoencoderKL(**cast("Any", config)).float()
    model.load_state_dict(shipped.state_dict())
    if scale is not None:
        model.register_to_config(scaling_factor=round(scale, 5))
    return model


@app.command(name="autoencoder")
def train_autoencoder(
    minutes: Annotated[float, Parameter(help="Training time.")] = 4.0,
    steps: Annotated[int, Parameter(help="Most steps of 64 frames.")] = 4000,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Train the autoencoder between frames and latents some more, on frames of clips."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    train, test = split_digits()
    model, budget, step = new_autoencoder(), Budget(minutes, steps), 0
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    with tqdm(total=steps, desc="autoencoder") as bar:
        while (progress := budget.progress(step)) < 1:
            optimizer.param_groups[0]["lr"] = learning_rate(progress, peak=2e-3)
            frames = to_colour(random_clips(*train, 64).videos[:, torch.randint(FRAMES, (1,))])
            loss = autoencoder_loss(model, frames)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            step += 1
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.5f}", refresh=False)
    videos = random_clips(*test, 100).videos
    with torch.inference_mode():
        latents = cast("Any", model.encode(to_colour(videos))).latent_dist.mode()
    scale = 1 / latents.std().item()
    save_atomically(work / "autoencoder.pt", {"scale": scale, "weights": model.state_dict()})
    row = {"stage": "autoencoder", "steps": step, "seconds": round(budget.seconds(), 1)}
    row["scaling_factor"] = round(scale, 5)
    keep_row(work, row | {"test_psnr_db": round(psnr(model, videos), 2)})


def load_autoencoder(work: Path) -> AutoencoderKL:
    """The trained autoencoder in float32, with the scale that gives latents unit spread."""
    saved = torch.load(work / "autoencoder.pt", weights_only=True)
    model = new_autoencoder(saved["scale"])
    model.load_state_dict(saved["weights"])
    return model.eval().requires_grad_(False)


# --- text ----------------------------------------------------------------------------------------


def new_tokenizer() -> Any:
    """A tokenizer of the words that clips are asked for with."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(WORDS)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = cast("Any", pre_tokenizers.Whitespace())
    end = [("</s>", words["</s>"])]
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def new_text_encoder() -> Any:
    """A T5 encoder of random weights, the same at every call."""
    from transformers import T5Config, T5EncoderModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return T5EncoderModel(T5Config(**cast("Any", TEXT_ENCODER))).half().float().eval()


@torch.inference_mode()
def embedded_prompts() -> Tensor:
    """What the text encoder gives for every digit and direction, (10, 4, words, channels)."""
    prompts = [prompt_of(digit, way) for digit in range(10) for way in range(len(DIRECTIONS))]
    tokens = new_tokenizer()(prompts, return_tensors="pt")
    given = new_text_encoder()(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    return given.unflatten(0, (len(DIGITS), len(DIRECTIONS))).clone()


# --- transformer ---------------------------------------------------------------------------------


@torch.inference_mode()
def encode_clips(autoencoder: AutoencoderKL, clips: Clips) -> Tensor:
    """Latents of clips, (B, 4, frames, 8, 8), of unit spread."""
    parts = []
    for videos in tqdm(clips.videos.split(64), desc="latents"):
        latents = cast("Any", autoencoder.encode(to_colour(videos))).latent_dist.mode()
        parts.append(latents.unflatten(0, (len(videos), FRAMES)).transpose(1, 2))
    scale: float = cast("Any", autoencoder.config).scaling_factor
    return torch.cat(parts).clone() * scale


def flow_loss(model: Any, latents: Tensor, clips: Clips, texts: Tensor, size: int) -> Tensor:
    """Squared error of the velocity, data minus noise, at even timesteps; 10 % have no text."""
    index = torch.randint(len(latents), (size,))
    clean, noise = latents[index], torch.randn(size, *latents.shape[1:])
    t = (torch.randperm(size) + torch.rand(size)) / size
    noisy = torch.lerp(clean, noise, t.view(-1, 1, 1, 1, 1))
    text = texts[clips.digits[index], clips.directions[index]]
    dropped = (torch.rand(size) < 0.1).view(-1, 1, 1)
    text = torch.where(dropped, model.y_embedder.y_embedding[None], text)
    guess = model(noisy, t * 1000, text[:, None], fps=float(FPS), height=SIDE, width=SIDE)
    return functional.mse_loss(guess, clean - noise)


def new_transformer() -> STDiT3:
    """A denoiser that begins with a velocity of zero and is hardly modulated by time."""
    model = STDiT3(**TRANSFORMER)
    nn.init.zeros_(model.final_layer.linear.weight)
    modulation = model.t_block[1]
    assert isinstance(modulation, nn.Linear)
    nn.init.normal_(modulation.weight, std=0.02)
    return model


def optimizers(model: STDiT3, threads: int) -> dict[str, torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, Adam for all else that learns."""
    blocks = (*model.spatial_blocks, *model.temporal_blocks)
    inner = [
        weight
        for block in blocks
        for name, weight in block.named_parameters()
        if weight.ndim == 2 and name != "scale_shift_table"
    ]
    known = {id(weight) for weight in inner}
    outer = [w for w in model.parameters() if w.requires_grad and id(w) not in known]
    return {"muon": Muon(inner, peak=3e-3, threads=threads)} | adam(outer, peak=1.5e-3)


def pipeline(transformer: STDiT3, autoencoder: AutoencoderKL) -> OpenSoraPipeline:
    """The pipeline that is shipped, quiet."""
    scheduler = RectifiedFlowScheduler(base_resolution=SIDE * SIDE)
    made = OpenSoraPipeline(
        new_tokenizer(), new_text_encoder(), autoencoder, transformer, scheduler
    )
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe: OpenSoraPipeline, seed: int, steps: int, guidance: float) -> Clips:
    """Draw every digit in every direction once."""
    digits = torch.arange(len(DIGITS)).repeat_interleave(len(DIRECTIONS))
    directions = torch.arange(len(DIRECTIONS)).repeat(len(DIGITS))
    prompts = [prompt_of(*each) for each in zip(digits.tolist(), directions.tolist(), strict=True)]
    output: Any = pipe(
        prompts,
        height=SIDE,
        width=SIDE,
        num_frames=FRAMES,
        fps=FPS,
        guidance_scale=guidance,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
    )
    return Clips(videos=output.frames, digits=digits, directions=directions)


def save_sheet(clips: Clips, path: Path) -> None:
    """Write the first 20 clips as a PNG, one a row."""
    from PIL import Image

    tiles = clips.videos[:20].mean(dim=2).permute(0, 2, 1, 3).reshape(-1, FRAMES * SIDE)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((tiles * 255).byte().numpy()).save(path)


def export(transformer: STDiT3, autoencoder: AutoencoderKL) -> None:
    """Write the pipeline folder, weights in float16, each file atomically."""
    made = pipeline(copy.deepcopy(transformer).half(), copy.deepcopy(autoencoder).half())
    made.text_encoder.half()
    with tempfile.TemporaryDirectory() as scratch:
        made.save_pretrained(scratch)
        for path in sorted(Path(scratch).rglob("*.*")):
            write_atomically(FOLDER / path.relative_to(scratch), path.read_bytes())


def report(training: Training, autoencoder: AutoencoderKL, work: Path) -> None:
    """Checkpoint, draw 40 clips, print the parts that are named right, write the folder."""
    training.save(work / "transformer.pt")
    clips = draw(pipeline(training.average, autoencoder), seed=1, steps=STEPS, guidance=GUIDANCE)
    digits, directions = named(load_clip_classifier(), clips)
    save_sheet(clips, work / "sheet.png")
    export(training.average, autoencoder)
    row = {"stage": "transformer", "batch": BATCH} | training.numbers()
    row["digits_named_40_samples"] = round(digits, 4)
    keep_row(work, row | {"directions_named_40_samples": round(directions, 4)})


@app.command(name="transformer")
def train_transformer(
    minutes: Annotated[float, Parameter(help="Training time, resumed time included.")] = 90.0,
    steps: Annotated[int, Parameter(help="Most steps of 16 clips.")] = 30000,
    resume: Annotated[bool, Parameter(help="Go on from the last checkpoint.")] = False,
    compiled: Annotated[bool, Parameter(help="Compile: 3 minutes first, then faster.")] = True,
    work: Work = DEFAULT_WORK,
    threads: Threads = 1,
) -> None:
    """Train the denoiser on the latents and write the pipeline folder."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    autoencoder = load_autoencoder(work)
    model = new_transformer()
    training = new_training(model, STDiT3(**TRANSFORMER), optimizers(model, threads))
    if resume:
        training.load(work / "transformer.pt")
    clips, texts = every_clip(*split_digits()[0], copies=COPIES), embedded_prompts()
    latents = encode_clips(autoencoder, clips)
    budget = Budget(minutes, steps, before=training.seconds)
    learner: Any = torch.compile(model) if compiled else model

    def loss() -> Tensor:
        return flow_loss(learner, latents, clips, texts, BATCH // threads)

    torch.set_num_threads(1)
    fit(training, budget, [loss] * threads, lambda: report(training, autoencoder, work))


# --- check ---------------------------------------------------------------------------------------


def judge(clips: Clips) -> dict[str, Any]:
    """Grade drawn clips by the classifier and against real ones."""
    classifier = load_clip_classifier()
    real = [real_clips(400, seed=seed).videos for seed in (1, 2)]
    with torch.inference_mode():
        drawn, *halves = (
            torch.cat([classifier.features(part) for part in videos.split(100)])
            for videos in (clips.videos, *real)
        )
    digits, directions = named(classifier, clips)
    return {
        "samples": len(clips.digits),
        "digits_named": round(digits, 4),
        "directions_named": round(directions, 4),
        "frechet_to_real": round(frechet_distance(drawn, torch.cat(halves)), 4),
        "frechet_real_half_to_half": round(frechet_distance(*halves), 4),
    }


@app.command(name="check")
def check(
    steps: Annotated[int, Parameter(help="Steps of each sample.")] = STEPS,
    guidance: Annotated[float, Parameter(help="Strength of the guidance.")] = GUIDANCE,
    write: Annotated[bool, Parameter(help="Write the record.")] = True,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Draw 400 clips from the written folder, grade them and record all numbers."""
    torch.set_num_threads(threads)
    pipe: Any = OpenSoraPipeline.from_pretrained(FOLDER, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    start = time.monotonic()
    parts = [draw(pipe, seed, steps, guidance) for seed in tqdm(SAMPLE_SEEDS, desc="samples")]
    seconds = round(time.monotonic() - start, 1)
    save_sheet(parts[0], work / "sheet.png")
    clips = Clips(
        videos=torch.cat([part.videos for part in parts]),
        digits=torch.cat([part.digits for part in parts]),
        directions=torch.cat([part.directions for part in parts]),
    )
    row = {"stage": f"check-{guidance}", "steps": steps, "guidance": guidance, "seconds": seconds}
    row["folder_bytes"] = sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file())
    keep_row(work, row | judge(clips))
    if write:
        write_record(work)


@app.command(name="record")
def write_record(work: Work = DEFAULT_WORK) -> None:
    """Write the numbers of all stages so far into `benchmarks/`."""
    record = Record(
        what="train",
        modality="video",
        question="How was the shipped model of moving digits trained, and how good is it?",
        command=command(),
        date=now(),
        hardware="CPU",
        versions=versions("torch", "diffusers", "transformers", "scikit-learn"),
        commit=commit(),
        seeds={"training": [SEED], "samples": SAMPLE_SEEDS, "real clips": [1, 2]},
        settings={"processor": hardware(torch.device("cpu")), "dtype of weights": "float16"},
        rows=kept_rows(work),
        notes=NOTES,
    )
    print(record.save())


@app.command(name="all")
def train_all(
    minutes: Annotated[float, Parameter(help="Training time of the denoiser.")] = 90.0,
    work: Work = DEFAULT_WORK,
    threads: Threads = 2,
) -> None:
    """Run the four stages one after the other."""
    train_classifier(work=work, threads=threads)
    train_autoencoder(work=work, threads=threads)
    train_transformer(minutes=minutes, work=work, threads=threads)
    check(work=work, threads=threads)


if __name__ == "__main__":
    app()
