"""Published checkpoints: sizes by their shapes, layouts of files, one line for what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.open_sora_models import denoiser, save_published, video_autoencoder
from safetensors.torch import save_file
from smoothcache_core.errors import PipelineError, SmoothCacheWarning
from smoothcache_video.open_sora import (
    OpenSoraPipeline,
    load_autoencoder,
    load_denoiser,
    load_published,
)
from torch import Tensor


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_published(tmp_path_factory.mktemp("published"))


def same(one: Any, other: Any) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


def settings(model: Any) -> dict[str, Any]:
    return {name: value for name, value in model.config.items() if not name.startswith("_")}


def weights() -> dict[str, Tensor]:
    return dict(denoiser().state_dict())


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"patch_size": (1, 4, 2), "mlp_ratio": 2.0, "num_heads": 4},
        {"pred_sigma": False, "qk_norm": False, "depth": 1, "in_channels": 3},
    ],
)
def test_the_size_of_a_denoiser_is_that_of_its_shapes(changed: dict[str, Any], tmp_path: Path):
    made = denoiser(**changed)
    save_file(dict(made.state_dict()), tmp_path / "any.safetensors")
    loaded = load_denoiser(tmp_path / "any.safetensors", input_sq_size=64)
    assert same(loaded, made)
    assert settings(loaded) == settings(made) | {"input_sq_size": 64}
    assert not loaded.training


@pytest.mark.parametrize(
    "changed",
    [
        {"block_out_channels": (32, 64, 64), "layers_per_block": 2},
        {"channel_multipliers": (1, 2), "temporal_downsample": (True,), "num_res_blocks": 2},
    ],
)
def test_so_is_that_of_an_autoencoder(changed: dict[str, Any], tmp_path: Path):
    made = video_autoencoder(**changed)
    torch.save(made.state_dict(), tmp_path / "any.bin")
    loaded = load_autoencoder(tmp_path / "any.bin", micro_frame_size=None)
    assert same(loaded, made)
    assert loaded.latent_frames(34) < made.latent_frames(34)


def test_an_autoencoder_without_its_two_numbers_has_upstreams(tmp_path: Path):
    held = video_autoencoder().state_dict()
    save_file(
        {n: t for n, t in held.items() if n not in ("scale", "shift")}, tmp_path / "a.safetensors"
    )
    assert same(load_autoencoder(tmp_path / "a.safetensors"), video_autoencoder())


def parts_of(folder: Path) -> None:
    """Save weights in two files with an index, as large checkpoints are."""
    names, held = sorted(weights()), weights()
    files = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, part in files.items():
        save_file({name: held[name] for name in part}, folder / file)
    index = {name: file for file, part in files.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


@pytest.mark.parametrize(
    "save",
    [
        lambda folder: save_file(weights(), folder / "diffusion_pytorch_model.safetensors"),
        lambda folder: torch.save(weights(), folder / "pytorch_model.bin"),
        lambda folder: torch.save({"state_dict": weights()}, folder / "ema.pt"),
        parts_of,
    ],
)
def test_a_folder_may_hold_them_in_any_usual_layout(save: Any, tmp_path: Path):
    save(tmp_path)
    assert same(load_denoiser(tmp_path), denoiser())


def test_what_the_library_saved_loads_as_well(tmp_path: Path):
    denoiser().save_pretrained(tmp_path)
    assert same(load_denoiser(tmp_path), denoiser())


def test_weights_get_the_data_type_asked_for(published: dict[str, Path]):
    loaded = load_denoiser(published["denoiser"], dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}


def test_a_name_is_fetched_from_the_model_hub(
    published: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    asked = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(published["denoiser"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert same(load_denoiser(), denoiser())
    assert asked == [
        ("hpcai-tech/OpenSora-STDiT-v3", ["*.safetensors", "*.safetensors.index.json"])
    ]


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch):
    def fetch(name: str, **_: Any) -> str:
        raise ConnectionError("no route\nand much more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(PipelineError, match=r"cannot load checkpoint 'a/b' \(.*\): no route$"):
        load_denoiser("a/b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda held: held.pop("spatial_blocks.1.attn.qkv.bias"),
            r"not one of STDiT3: 'spatial_blocks.1.attn.qkv.bias' is missing$",
        ),
        (lambda held: held.pop("rope.freqs"), "not one of STDiT3: 'rope.freqs' is missing$"),
        (
            lambda held: held.update(pos_embed=torch.zeros(1), other=torch.zeros(1)),
            r"'other' is not one of its parameters \(and 1 more\)$",
        ),
        (
            lambda held: held.update({"t_block.1.bias": torch.zeros(3)}),
            r"'t_block.1.bias' is \(3,\) instead of \(192,\)$",
        ),
        (
            lambda held: [held.pop(name) for name in list(held) if "temporal_blocks.1" in name],
            r"'temporal_blocks.1.scale_shift_table' is missing \(and 16 more\)$",
        ),
    ],
)
def test_a_missing_or_surplus_parameter_is_named(change: Any, message: str, tmp_path: Path):
    held = weights()
    change(held)
    file = tmp_path / "model.safetensors"
    save_file(held, file)
    with pytest.raises(PipelineError, match=message) as caught:
        load_denoiser(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_checkpoint_of_another_part_is_refused(published: dict[str, Path]):
    with pytest.raises(PipelineError, match=r"not one of AutoencoderKLOpenSora: .* is missing"):
        load_autoencoder(published["denoiser"])


class Code:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def bad(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def saved(file: Path, content: object) -> Path:
    torch.save(content, file)
    return file


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.pt", "there is no checkpoint"),
        (lambda folder: folder, "has no file of weights"),
        (lambda folder: bad(folder, "a.txt", b""), "is no checkpoint; give a folder"),
        (lambda folder: bad(folder, "a.safetensors", b"broken"), "cannot read '.*a.safetensors'"),
        (lambda folder: bad(folder, "a.pt", b"broken"), "'.*a.pt'"),
        (
            lambda folder: saved(folder / "a.bin", {"a": Code()}),
            "holds more than tensors and is not read",
        ),
        (
            lambda folder: (
                bad(folder, "a.bin.index.json", b'{"weight_map": {"x": "b.bin"}}').parent
            ),
            "lists 'b.bin', which is not beside it",
        ),
        (lambda folder: bad(folder, "a.bin.index.json", b"[]").parent, "is no index of weights"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(
    make: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(PipelineError, match=message) as caught:
        load_denoiser(make(tmp_path))
    assert "\n" not in str(caught.value)
    assert not capsys.readouterr().out


def test_two_files_without_an_index_are_not_guessed_between(tmp_path: Path):
    for name in ("ema.pt", "model.pt"):
        torch.save(weights(), tmp_path / name)
    with pytest.raises(PipelineError, match=r"several files of weights.*'ema.pt', 'model.pt'"):
        load_denoiser(tmp_path)


def test_numbers_and_names_that_are_no_tensors_are_refused(tmp_path: Path):
    torch.save({"step": 3, "state_dict": weights()}, tmp_path / "a.pt")
    with pytest.raises(PipelineError, match="does not hold tensors by name"):
        load_denoiser(tmp_path)


def sampled(pipe: OpenSoraPipeline) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        "a dog",
        height=8,
        width=8,
        num_frames=5,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).frames  # pyright: ignore[reportAttributeAccessIssue]


def test_the_published_parts_make_a_pipeline_that_can_be_saved(
    published: dict[str, Path], tmp_path: Path
):
    pipe = load_published(**published, dtype=torch.float32)
    video = sampled(pipe)
    assert video.shape == (1, 5, 3, 8, 8)
    pipe.save_pretrained(tmp_path)
    assert torch.equal(sampled(OpenSoraPipeline.from_pretrained(tmp_path)), video)


def test_a_text_that_is_cut_is_told(published: dict[str, Path]):
    pipe = load_published(**published, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    with pytest.warns(SmoothCacheWarning, match="a text has 6 tokens, .* reads the first 5 of"):
        pipe(["a dog", "a dog a dog a dog"], height=8, width=8, num_frames=1, num_inference_steps=1)


def test_parts_may_be_left_out(published: dict[str, Path]):
    pipe = load_published(published["denoiser"], None, None)
    assert pipe.vae is None
    assert pipe.text_encoder is None
    assert pipe.transformer.dtype == torch.bfloat16


def test_a_text_encoder_that_is_none_is_told_in_one_line(
    published: dict[str, Path], tmp_path: Path
):
    with pytest.raises(PipelineError, match="cannot load text encoder") as caught:
        load_published(published["denoiser"], None, tmp_path)
    assert "\n" not in str(caught.value)
