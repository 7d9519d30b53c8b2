"""The sampling script of DiT: in diffusers, and in its authors' own code; with routers too."""

from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from kit.facebook_dit import install
from kit.scripts import refused, run
from smoothcache_core import Schedule

from tools.sample import dit as script

STEPS = 8
pytestmark = pytest.mark.filterwarnings(
    "ignore:a run of 8 evaluations", "ignore:only .* samples", "ignore:the predicted error"
)


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    AutoencoderKL(block_out_channels=(32,)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def words(vae: str, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """Options of a small model in facebook's code."""
    install(monkeypatch)
    return (
        "--library", "facebook", "--image-size", 64, "--num-classes", 10, "--class", 1,
        "--class", 2, "--num-sampling-steps", STEPS, "--vae", vae, "--device", "cpu",
    )  # fmt: skip


def test_what_was_planned_once_is_sampled_by_again(words: tuple[object, ...], tmp_path: Path):
    files = [tmp_path / f"{name}.png" for name in ("first", "again", "plain")]
    schedule = tmp_path / "twice.json"
    ddim = (*words, "--ddim-sample")
    run(script, *ddim, "--speedup", 1.5, "--schedule", schedule, "--output", files[0])
    run(script, *ddim, "--schedule", schedule, "--output", files[1])
    run(script, *ddim, "--output", files[2])
    first, again, plain = (file.read_bytes() for file in files)
    assert first == again
    assert first != plain
    assert Schedule.load(schedule).evaluations == STEPS


def test_a_router_is_trained_and_sampled_by(words: tuple[object, ...], tmp_path: Path):
    router = (*words, "--ddim-sample", "--path", tmp_path / "router.pt", "--thres", 0.5)
    files = [tmp_path / "trained.png", tmp_path / "again.png"]
    run(script, *router, "--updates", 3, "--output", files[0])
    run(script, *router, "--output", files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("ddim", [("--ddim-sample",), ()])
def test_a_seed_decides_everything(
    words: tuple[object, ...], tmp_path: Path, ddim: tuple[str, ...]
):
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        run(script, *words, *ddim, "--seed", seed, "--output", file)
    one, same, other = (file.read_bytes() for file in files)
    assert one == same != other


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--updates", 2), "say where to with --path"),
        (("--path", "r.pt", "--schedule", "s.json"), "leave out --schedule"),
        (("--model", "DiT-S/2"), "there is no model"),
        (("--small",), "--small is a model of diffusers"),
    ],
)
def test_what_makes_no_sense_is_refused(
    words: tuple[object, ...], given: tuple[object, ...], said: str
):
    assert said in refused(script, *words, *given)


def test_options_of_facebooks_code_are_for_that_only():
    told = refused(script, "--num-classes", 10, "--vae", "ema")
    assert "--num-classes, --vae: of facebook's code" in told


def test_missing_code_is_told(words: tuple[object, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusion", None)
    assert "inside a clone of it" in refused(script, *words)


def test_options_have_the_names_of_the_scripts_that_users_know(capsys: pytest.CaptureFixture[str]):
    run(script, "--help")
    shown = capsys.readouterr().out
    for name in ("--accelerate-method", "--ddim-sample", "--path", "--thres", "--cfg-scale"):
        assert name in shown
