"""STDiT3: parameters of the published checkpoint, shapes, conditions, given frames."""

from pathlib import Path

import pytest
import torch
from smoothcache_video.open_sora import STDiT3
from torch import Tensor

SIZE = {
    "hidden_size": 32,
    "depth": 2,
    "num_heads": 2,
    "caption_channels": 12,
    "model_max_length": 5,
}
BLOCK = {
    "scale_shift_table": (6, 1152),
    "attn.qkv.weight": (3456, 1152),
    "attn.qkv.bias": (3456,),
    "attn.q_norm.weight": (72,),
    "attn.k_norm.weight": (72,),
    "attn.proj.weight": (1152, 1152),
    "attn.proj.bias": (1152,),
    "cross_attn.q_linear.weight": (1152, 1152),
    "cross_attn.q_linear.bias": (1152,),
    "cross_attn.kv_linear.weight": (2304, 1152),
    "cross_attn.kv_linear.bias": (2304,),
    "cross_attn.proj.weight": (1152, 1152),
    "cross_attn.proj.bias": (1152,),
    "mlp.fc1.weight": (4608, 1152),
    "mlp.fc1.bias": (4608,),
    "mlp.fc2.weight": (1152, 4608),
    "mlp.fc2.bias": (1152,),
}
AROUND = {
    "rope.freqs": (36,),
    "x_embedder.proj.weight": (1152, 4, 1, 2, 2),
    "x_embedder.proj.bias": (1152,),
    "t_embedder.mlp.0.weight": (1152, 256),
    "t_embedder.mlp.0.bias": (1152,),
    "t_embedder.mlp.2.weight": (1152, 1152),
    "t_embedder.mlp.2.bias": (1152,),
    "fps_embedder.mlp.0.weight": (1152, 256),
    "fps_embedder.mlp.0.bias": (1152,),
    "fps_embedder.mlp.2.weight": (1152, 1152),
    "fps_embedder.mlp.2.bias": (1152,),
    "t_block.1.weight": (6912, 1152),
    "t_block.1.bias": (6912,),
    "y_embedder.y_embedding": (300, 4096),
    "y_embedder.y_proj.fc1.weight": (1152, 4096),
    "y_embedder.y_proj.fc1.bias": (1152,),
    "y_embedder.y_proj.fc2.weight": (1152, 1152),
    "y_embedder.y_proj.fc2.bias": (1152,),
    "final_layer.linear.weight": (32, 1152),
    "final_layer.linear.bias": (32,),
    "final_layer.scale_shift_table": (2, 1152),
}
"""Names and shapes of the checkpoint of Open-Sora v1.2, XL/2: these and 28 blocks of each list."""


def model(**size: int | bool | tuple[int, ...]) -> STDiT3:
    """Return a small model with no parameter left at zero."""
    torch.manual_seed(0)
    made = STDiT3(**SIZE | size).eval()  # pyright: ignore[reportArgumentType]
    for parameter in made.parameters():
        if not parameter.any():
            parameter.detach().normal_(std=0.1)
    return made


def given(frames: int = 3, side: int = 8, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(batch, 4, frames, side, side, generator=generator),
        "timestep": torch.full((batch,), 700.0),
        "y": torch.randn(batch, 1, 5, 12, generator=generator),
    }


def test_parameters_are_those_of_the_published_checkpoint():
    with torch.device("meta"):
        full = STDiT3()
    blocks = {
        f"{name}.{number}.{key}": shape
        for name in ("spatial_blocks", "temporal_blocks")
        for number in range(28)
        for key, shape in BLOCK.items()
    }
    found = {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()}
    assert found == AROUND | blocks
    assert sum(parameter.numel() for parameter in full.parameters()) == 1_207_643_972


@pytest.mark.parametrize("pred_sigma", [True, False])
@pytest.mark.parametrize("sizes", [(1, 8, 8), (3, 8, 6), (4, 7, 9)])
def test_any_size_and_number_of_frames_comes_back(sizes: tuple[int, int, int], pred_sigma: bool):
    made = model(pred_sigma=pred_sigma)
    x = torch.randn(2, 4, *sizes)
    output = made(x, torch.tensor([500.0, 500.0]), torch.randn(2, 1, 5, 12))
    assert output.shape == (2, 8 if pred_sigma else 4, *sizes)
    assert output.isfinite().all()


def test_words_that_do_not_count_change_nothing():
    made, arguments = model(), given()
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    seen = made(**arguments, mask=mask)
    arguments["y"][0, :, 3:] = 7.0
    assert torch.equal(made(**arguments, mask=mask), seen)
    arguments["y"][1, :, 3:] = 7.0
    changed = made(**arguments, mask=mask)
    assert torch.equal(changed[0], seen[0])
    assert not torch.allclose(changed[1], seen[1])


def test_one_mask_serves_both_halves_of_a_guided_batch():
    made, arguments = model(), given(batch=2)
    mask = torch.tensor([[1, 1, 0, 0, 0]])
    assert torch.equal(made(**arguments, mask=mask), made(**arguments, mask=mask.repeat(2, 1)))


def test_frames_are_told_apart_by_their_order():
    made, arguments = model(), given()
    turned = {**arguments, "x": arguments["x"].flip(2)}
    assert not torch.allclose(made(**turned).flip(2), made(**arguments), atol=1e-4)


@pytest.mark.parametrize("name", ["fps", "height"])
def test_frame_rate_and_size_are_seen(name: str):
    made, arguments = model(), given()
    outputs = [made(**arguments, **{name: value}) for value in (8.0, 96.0)]
    assert not torch.allclose(*outputs, atol=1e-5)
    assert torch.equal(made(**arguments, **{name: torch.tensor([96.0, 96.0])}), outputs[1])


def test_given_frames_are_modulated_as_at_timestep_0():
    made, arguments = model(), given()
    none_given = made(**arguments, x_mask=torch.ones(2, 3, dtype=torch.bool))
    assert torch.allclose(none_given, made(**arguments), atol=1e-6)
    seen: list[Tensor] = []
    made.get_submodule("spatial_blocks.1.attn").register_forward_hook(
        lambda *call: seen.append(call[2])
    )
    for t in (700.0, 9.0):  # no frame is noisy, so the timestep of the run does not matter
        made(**arguments | {"timestep": torch.full((2,), t)}, x_mask=torch.zeros(2, 3).bool())
    assert torch.equal(*seen)
    some = made(**arguments, x_mask=torch.tensor([[False, True, True]] * 2))
    assert not torch.allclose(some, none_given, atol=1e-4)


def test_a_text_of_unknown_arguments_is_refused():
    with pytest.raises(TypeError, match="nonsense"):
        model()(**given(), nonsense=1)


def test_a_fresh_model_has_temporal_blocks_that_do_nothing():
    torch.manual_seed(0)
    made = STDiT3(**SIZE).eval()  # pyright: ignore[reportArgumentType]
    moved: list[Tensor] = []
    for block in made.temporal_blocks:
        block.register_forward_hook(lambda _, args, output: moved.append(output - args[0]))
    made(**given())
    assert len(moved) == 2
    assert not any(each.any() for each in moved)


def test_saved_and_loaded_it_gives_the_same(tmp_path: Path):
    made = model()
    made.save_pretrained(tmp_path)
    loaded = STDiT3.from_pretrained(tmp_path)
    assert torch.equal(loaded(**given()), made(**given()))


def test_gradients_are_checkpointed_alike():
    made = model().train()
    with torch.enable_grad():
        weight = made.get_parameter("t_block.1.weight")
        plain = torch.autograd.grad(made(**given()).square().mean(), weight)[0]
        made.enable_gradient_checkpointing()
        checked = torch.autograd.grad(made(**given()).square().mean(), weight)[0]
    assert torch.allclose(plain, checked, rtol=1e-4)
