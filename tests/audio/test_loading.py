"""Loading audio models from folders in the layout of either library."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.stable_audio.pipeline_stable_audio import StableAudioPipeline
from kit.audio_folders import save_stable_audio, save_stable_audio_tools
from safetensors.torch import load_file
from smoothcache_audio import (
    load_model,
    prompt_sampler,
    shipped_folder,
    stable_audio_tools as sat,
)
from smoothcache_core.errors import PipelineError


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_audio_tools(tmp_path_factory.mktemp("models") / "digits")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stable_audio(tmp_path_factory.mktemp("models") / "pipeline")


@pytest.fixture
def copied(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "copied"))


def test_a_folder_of_stable_audio_tools_loads_with_its_weights(digits: Path):
    model = load_model(digits, device="cpu")
    weights = load_file(digits / "model.safetensors")
    loaded = model.state_dict()
    assert weights.keys() == loaded.keys()
    assert all(torch.equal(loaded[name], weight) for name, weight in weights.items())
    assert (
        model.sample_size == json.loads((digits / "model_config.json").read_text())["sample_size"]
    )
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_checkpoint_loads_like_safetensors(copied: Path):
    expected = load_model(copied, device="cpu").state_dict()
    weights = load_file(copied / "model.safetensors")
    torch.save({"state_dict": weights}, copied / "model.ckpt")
    (copied / "model.safetensors").unlink()
    loaded = load_model(copied, device="cpu").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in expected.items())


def test_a_folder_of_diffusers_loads_as_the_class_it_names(pipeline: Path):
    pipe = load_model(pipeline, device="cpu", dtype="bfloat16")
    assert isinstance(pipe, StableAudioPipeline)
    assert pipe.transformer.dtype == torch.bfloat16


def test_the_data_type_is_that_of_the_transformer_alone(digits: Path):
    model = load_model(digits, device="cpu", dtype="bfloat16")
    assert next(model.model.parameters()).dtype == torch.bfloat16
    assert next(model.conditioner.parameters()).dtype == torch.float32
    latents = prompt_sampler(model, conditions=[1], steps=3)(1)
    assert latents.dtype == torch.float32
    assert latents.isfinite().all()


def test_a_folder_for_both_libraries_is_loaded_by_the_one_that_is_asked_for(
    copied: Path, pipeline: Path
):
    shutil.copytree(pipeline, copied, dirs_exist_ok=True)

    def loaded(**options: Any) -> str:
        return type(load_model(copied, device="cpu", **options)).__name__

    assert loaded() == sat.WRAPPER
    assert loaded(library="stable-audio-tools") == sat.WRAPPER
    assert loaded(library="diffusers") == "StableAudioPipeline"


def test_loading_says_nothing(digits: Path, pipeline: Path, capfd: pytest.CaptureFixture[str]):
    load_model(digits, device="cpu")
    load_model(pipeline, device="cpu")
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------------------- refused


def changed(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "autoencoder"}, "is of a 'autoencoder' model that denoises by 'dit'"),
        ({"model_type": "diffusion_cond_inpaint"}, "only 'diffusion_cond' models"),
        ({"model": {"diffusion": {"type": "adp_cfg_1d"}}}, "denoises by 'adp_cfg_1d'"),
        ({"model": {}}, "denoises by None"),
        ({"model": []}, "is no configuration of stable-audio-tools"),
        ({"sample_rate": 0}, r"sample_size and sample_rate are \(128, 0\)"),
    ],
)
def test_a_foreign_configuration_is_refused(copied: Path, settings: dict[str, Any], message: str):
    changed(copied / "model_config.json", **settings)
    with pytest.raises(PipelineError, match=message):
        load_model(copied, device="cpu")


def test_a_broken_configuration_is_refused(copied: Path):
    (copied / "model_config.json").write_text('{"model_type": ')
    with pytest.raises(PipelineError, match=r"model_config.json' is not a JSON file"):
        load_model(copied, device="cpu")


PICKLES: dict[str, tuple[dict[str, Any], str]] = {
    "text of CLAP": ({"type": "clap_text", "config": {"clap_ckpt_path": "PATH"}}, "a 'clap_text'"),
    "sound of CLAP": ({"type": "clap_audio", "config": {}}, "has a 'clap_audio', which is loaded"),
    "safe name of CLAP": (
        {"type": "clap_text", "config": {"clap_ckpt_path": "a.safetensors"}},
        "has a 'clap_text', which is loaded from a pickle",
    ),
    "autoencoder": (
        {"type": "pretransform", "config": {"pretransform_ckpt_path": "PATH"}},
        "names 'PATH' as its pretransform_ckpt_path, which may be a pickle",
    ),
    "mix": (
        {"type": "source_mix", "config": {"pretransform_ckpt_path": "PATH"}},
        "names 'PATH' as its pretransform_ckpt_path",
    ),
    "downloaded": (
        {"type": "pretransform", "config": {"pretransform_config": {"type": "dac_pretrained"}}},
        "has a 'dac_pretrained', which is loaded from a pickle",
    ),
}


@pytest.mark.parametrize(("conditioner", "message"), PICKLES.values(), ids=PICKLES)
def test_a_configuration_that_would_load_a_pickle_is_refused_before_anything_is_built(
    copied: Path, conditioner: dict[str, Any], message: str
):
    file = copied / "model_config.json"
    pickle = copied / "part.ckpt"
    torch.save({"state_dict": {}}, pickle)
    config = json.loads(file.read_text())
    text = json.dumps({"id": "other", **conditioner}).replace("PATH", str(pickle))
    config["model"]["conditioning"]["configs"].append(json.loads(text))
    file.write_text(json.dumps(config))
    with pytest.raises(PipelineError, match=re.escape(message.replace("PATH", str(pickle)))):
        load_model(copied, device="cpu", library="stable-audio-tools")


class _Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.mark), "w")


def test_a_checkpoint_runs_no_code(copied: Path, tmp_path: Path):
    mark = tmp_path / "was-run"
    (copied / "model.safetensors").unlink()
    torch.save({"state_dict": {"a": _Runs(mark)}}, copied / "model.ckpt")
    with pytest.raises(PipelineError):
        load_model(copied, device="cpu")
    assert not mark.exists()


def test_a_configuration_that_is_nested_without_end_is_refused(copied: Path):
    (copied / "model_config.json").write_text("[" * 100_000)
    with pytest.raises(PipelineError, match=r"model_config.json' is not a JSON file: it is nested"):
        load_model(copied, device="cpu")


def test_weights_of_another_model_are_refused_in_one_line(copied: Path):
    config = json.loads((copied / "model_config.json").read_text())
    config["model"]["diffusion"]["config"]["depth"] = 3
    (copied / "model_config.json").write_text(json.dumps(config))
    with pytest.raises(
        PipelineError, match=r"cannot load model .* with stable-audio-tools"
    ) as error:
        load_model(copied, device="cpu")
    assert "\n" not in str(error.value)


def test_missing_weights_are_named(copied: Path):
    (copied / "model.safetensors").unlink()
    with pytest.raises(PipelineError, match=r"has no model.safetensors and no model.ckpt"):
        load_model(copied, device="cpu")


def test_a_folder_of_neither_library_is_refused(tmp_path: Path):
    with pytest.raises(PipelineError, match=r"no model_config.json and no model_index.json"):
        load_model(tmp_path, device="cpu")


def test_a_folder_of_the_other_library_is_refused(digits: Path, pipeline: Path):
    with pytest.raises(PipelineError, match=r"for diffusers: it has no model_index.json"):
        load_model(digits, library="diffusers", device="cpu")
    with pytest.raises(PipelineError, match=r"for stable-audio-tools: it has no model_config.json"):
        load_model(pipeline, library="stable-audio-tools", device="cpu")


def test_no_such_device_and_no_such_model_are_refused(digits: Path):
    with pytest.raises(PipelineError, match=r"device 'abacus' cannot be used"):
        load_model(digits, device="abacus")
    with pytest.raises(PipelineError, match=r"there is no model folder './nowhere'"):
        load_model("./nowhere")
    with pytest.raises(PipelineError, match=r"the shipped models are 'spoken-digits', not 'music'"):
        shipped_folder("music")


def test_missing_packages_are_named_with_how_to_get_them(
    digits: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sat, "_NEEDED", ("torch", "no_such_package"))
    with pytest.raises(
        PipelineError, match=r"of which no_such_package cannot be found.*pip install --no-deps "
    ):
        load_model(digits, device="cpu")
    assert sat.missing_packages() == ["no_such_package"]


def test_all_that_stable_audio_tools_needs_is_looked_for():
    assert sat.missing_packages() == []


def test_the_shipped_model_is_the_one_when_none_is_named():
    model = load_model(device="cpu")
    folder = shipped_folder()
    config = json.loads((folder / "model_config.json").read_text())
    assert (model.sample_rate, model.sample_size) == (config["sample_rate"], config["sample_size"])
    sampler = prompt_sampler(model, conditions=[3], steps=2, solver="dpmpp-2m")
    latents = sampler(1)
    assert sampler.decode(latents).shape == (1, 1, config["sample_size"])
