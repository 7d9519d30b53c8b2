"""The sampling script of DiT in its authors' code: plain, by a schedule, by a router."""

from pathlib import Path
from typing import Any

import cyclopts
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from kit.facebook_dit import install
from smoothcache_core import Schedule
from smoothcache_core.errors import CommandError

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
def settings(vae: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    install(monkeypatch)
    return {
        "image_size": 64,
        "num_classes": 10,
        "classes": (1, 2),
        "num_sampling_steps": STEPS,
        "ddim_sample": True,
        "vae": vae,
        "device": "cpu",
    }


def test_what_was_planned_once_is_sampled_by_again(settings: dict[str, Any], tmp_path: Path):
    files = [tmp_path / f"{name}.png" for name in ("first", "again", "plain")]
    schedule = tmp_path / "twice.json"
    script.main(**settings, speedup=1.5, schedule=schedule, output=files[0])
    script.main(**settings, schedule=schedule, output=files[1])
    script.main(**settings, output=files[2])
    first, again, plain = (file.read_bytes() for file in files)
    assert first == again
    assert first != plain
    assert Schedule.load(schedule).evaluations == STEPS


def test_a_router_is_trained_and_sampled_by(settings: dict[str, Any], tmp_path: Path):
    path = tmp_path / "router.pt"
    files = [tmp_path / "trained.png", tmp_path / "again.png"]
    script.main(**settings, path=path, updates=3, thres=0.5, output=files[0])
    script.main(**settings, path=path, thres=0.5, output=files[1])
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("ddim", [True, False])
def test_a_seed_decides_everything(settings: dict[str, Any], tmp_path: Path, ddim: bool):
    given: dict[str, Any] = settings | {"ddim_sample": ddim}
    files = [tmp_path / f"{n}.png" for n in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        script.main(**given, seed=seed, output=file)
    one, same, other = (file.read_bytes() for file in files)
    assert one == same != other


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"speedup": 2.0}, "say where to with --schedule"),
        ({"updates": 2}, "say where to with --path"),
        ({"path": Path("r.pt"), "schedule": Path("s.json")}, "leave out --schedule"),
        ({"model": "DiT-S/2"}, "there is no model"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], given: Any, said: str):
    with pytest.raises(CommandError, match=said):
        script.main(**settings, **given)


def test_missing_code_is_told(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusion", None)
    with pytest.raises(CommandError, match="inside a clone of it"):
        script.main(**settings)


def test_options_have_the_names_of_the_scripts_that_users_know(capsys: pytest.CaptureFixture[str]):
    cyclopts.App(default_command=script.main, result_action="return_value")(["--help"])
    shown = capsys.readouterr().out
    for name in ("--accelerate-method", "--ddim-sample", "--path", "--thres", "--cfg-scale"):
        assert name in shown
