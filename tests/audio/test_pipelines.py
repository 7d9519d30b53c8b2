"""Audio pipelines of diffusers, of small random components, cached, calibrated and planned for."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_longcat_audio_dit import LongCatAudioDiTVae
from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
from diffusers.models.autoencoders.autoencoder_same import AutoencoderSAME
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from diffusers.models.transformers.stable_audio_transformer import StableAudioDiTModel
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder
from diffusers.pipelines.ace_step.pipeline_ace_step import AceStepPipeline
from diffusers.pipelines.ddim.pipeline_ddim import DDIMPipeline
from diffusers.pipelines.longcat_audio_dit.pipeline_longcat_audio_dit import (
    LongCatAudioDiTPipeline,
)
from diffusers.pipelines.stable_audio.pipeline_stable_audio import StableAudioPipeline
from diffusers.pipelines.stable_audio_3.modeling_stable_audio_3 import (
    StableAudio3DurationEmbedder,
)
from diffusers.pipelines.stable_audio_3.pipeline_stable_audio_3 import StableAudio3Pipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from kit.audio_folders import save_stable_audio
from kit.audio_models import CASES, SAMPLE_RATE, stable_audio_tools_model
from kit.hook_reference import assert_restored, counted, hooked, snapshot
from smoothcache_audio import (
    ACE_STEP,
    LONGCAT_AUDIO,
    STABLE_AUDIO,
    STABLE_AUDIO_3,
    STABLE_AUDIO_TOOLS,
    PromptSampler,
    cached_pipeline,
    prompt_sampler,
    sampler_of,
)
from smoothcache_core import (
    PatternAdapter,
    Schedule,
    SmoothCacheWarning,
    cached,
    calibrate,
    fit,
    plan,
)
from smoothcache_core.errors import PipelineError, ScheduleError
from smoothcache_core.sources import interval
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # of diffusers' own names
    pytest.mark.filterwarnings("ignore:Should have t:UserWarning"),  # torchsde rounds bounds
]

ROW = (1, 0, 0, 1, 0)
SECONDS = 16 * 8 / SAMPLE_RATE
PROMPTS = ("rain", "a dog", "dog rain")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A pipeline and how it is sampled.

    Attributes:
        adapter: Adapter of its denoiser.
        build: Makes the pipeline from a denoiser, and another pipeline for its text encoder.
        calls: Calls of the denoiser in one evaluation.
        guidance: Strength of guidance.
        affine: Whether the final latent is an affine function of what the denoiser says.
        length_first: Whether the denoiser's latent is (batch, length, channels).
    """

    adapter: PatternAdapter
    build: Callable[[Any, StableAudioPipeline], Any]
    calls: int = 1
    guidance: float = 3.0
    affine: bool = True
    length_first: bool = False

    def sampler(self, other: StableAudioPipeline, **settings: Any) -> PromptSampler:
        """Return a sampler of the pipeline, whose text encoder is that of another one."""
        model = next(case for case in CASES if case.adapter is self.adapter).model()
        torch.manual_seed(1)
        pipe = self.build(model, other)
        pipe.set_progress_bar_config(disable=True)
        options = {"steps": len(ROW), "guidance": self.guidance, "samples": 2, "seconds": SECONDS}
        return prompt_sampler(pipe, conditions=PROMPTS, **{**options, **settings})


def stable_audio_pipeline(model: nn.Module, other: StableAudioPipeline) -> Any:
    return StableAudioPipeline(**{**other.components, "transformer": model})


def flow(**settings: Any) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(**settings)


def stable_audio_3_pipeline(model: nn.Module, other: StableAudioPipeline) -> Any:
    vae = AutoencoderSAME(
        audio_channels=1,
        patch_size=4,
        encoder_channels=16,
        encoder_c_mults=[1],
        encoder_strides=[2],
        encoder_transformer_depths=[1],
        latent_dim=8,
        dim_heads=16,
        sampling_rate=SAMPLE_RATE,
    )
    return StableAudio3Pipeline(
        vae=vae.eval(),
        text_encoder=other.text_encoder,
        tokenizer=other.tokenizer,
        duration_embedder=StableAudio3DurationEmbedder(output_dim=12, fourier_dim=8, max_val=10.0),
        transformer=model,  # pyright: ignore[reportArgumentType] any module will do
        scheduler=flow(num_train_timesteps=1, stochastic_sampling=True),
    )


def oobleck() -> AutoencoderOobleck:
    vae = AutoencoderOobleck(
        encoder_hidden_size=8,
        downsampling_ratios=[2, 4],
        channel_multiples=[1, 2],
        decoder_channels=8,
        decoder_input_channels=8,
        audio_channels=1,
        sampling_rate=SAMPLE_RATE,
    )
    return vae.eval()


def ace_step_pipeline(model: nn.Module, other: StableAudioPipeline) -> Any:
    encoder = AceStepConditionEncoder(
        hidden_size=12,
        intermediate_size=16,
        text_hidden_dim=12,
        timbre_hidden_dim=8,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=4,
    )
    encoder.silence_latent = encoder.silence_latent[:, :64]  # of 15000 frames, all are attended to
    return AceStepPipeline(
        vae=oobleck(),
        text_encoder=other.text_encoder,
        tokenizer=other.tokenizer,
        transformer=model,  # pyright: ignore[reportArgumentType] any module will do
        condition_encoder=encoder.eval(),
        scheduler=flow(num_train_timesteps=1),
    )


def longcat_pipeline(model: nn.Module, other: StableAudioPipeline) -> Any:
    vae = LongCatAudioDiTVae(
        channels=8,
        c_mults=[1, 2],
        strides=[2, 4],
        latent_dim=8,
        encoder_latent_dim=16,
        downsampling_ratio=8,
        sample_rate=SAMPLE_RATE,
    )
    return LongCatAudioDiTPipeline(
        vae=vae.eval(),
        text_encoder=other.text_encoder,
        tokenizer=other.tokenizer,
        transformer=model,  # pyright: ignore[reportArgumentType] any module will do
    )


SETTINGS = (
    Setting(adapter=STABLE_AUDIO, build=stable_audio_pipeline),
    Setting(adapter=STABLE_AUDIO_3, build=stable_audio_3_pipeline),
    Setting(adapter=ACE_STEP, build=ace_step_pipeline, affine=False, length_first=True),
    Setting(adapter=LONGCAT_AUDIO, build=longcat_pipeline, calls=2, length_first=True),
)

every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: s.adapter.name)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> StableAudioPipeline:
    """A pipeline, for its text encoder and its tokenizer."""
    folder = save_stable_audio(tmp_path_factory.mktemp("pipelines") / "stable-audio")
    return StableAudioPipeline.from_pretrained(folder)


def schedule_for(sampler: PromptSampler) -> Schedule:
    kinds = {site.kind for site in sampler.adapter.sites(sampler.model)}
    return Schedule(evaluations=len(ROW), rows=dict.fromkeys(kinds, ROW))


def test_text_is_really_encoded(other: StableAudioPipeline):
    assert isinstance(other.text_encoder, T5EncoderModel)
    assert isinstance(other.tokenizer, PreTrainedTokenizerFast)


@every_setting
def test_a_schedule_is_followed_exactly(setting: Setting, other: StableAudioPipeline):
    sampler = setting.sampler(other)
    model, sites = sampler.model, sampler.adapter.sites(sampler.model)
    with counted(model, sites) as plain_calls:
        plain = sampler(1)
    with hooked(model, sites, ROW, branches=setting.calls):
        expected = sampler(1)
    before = snapshot(model)
    with (
        counted(model, sites) as calls,
        cached_pipeline(sampler.pipe, schedule_for(sampler), branches=sampler.branches) as stats,
    ):
        outputs, another, again = sampler(1), sampler(2), sampler(1)
    assert_restored(model, before)
    assert stats.runs == 3
    assert stats.recomputed == 0
    assert stats.evaluations == 3 * setting.calls * sampler.evaluations
    every = {key: 3 * sum(ROW) * times for key, times in plain_calls.items()}
    assert {key: len(ROW) * times for key, times in calls.items()} == every
    assert torch.equal(outputs, expected)
    assert torch.equal(again, outputs)
    assert not torch.equal(another, outputs)
    assert not torch.equal(outputs, plain)
    assert torch.equal(sampler(1), plain)


@every_setting
def test_computing_everything_is_bit_identical(setting: Setting, other: StableAudioPipeline):
    sampler = setting.sampler(other)
    kinds = list(schedule_for(sampler).rows)
    everything = interval(1, evaluations=len(ROW), kinds=kinds)
    with (
        pytest.warns(SmoothCacheWarning, match="computes everything"),
        cached_pipeline(sampler.pipe, everything, branches=sampler.branches),
    ):
        outputs = sampler(1)
    assert torch.equal(outputs, sampler(1))


@every_setting
def test_another_number_of_steps_is_refused_before_computing(
    setting: Setting, other: StableAudioPipeline
):
    sampler, more = setting.sampler(other), setting.sampler(other, steps=len(ROW) + 1)
    sites = more.adapter.sites(more.model)

    def sample() -> None:
        with cached_pipeline(more.pipe, schedule_for(sampler), branches=sampler.branches):
            more(1)

    with (
        counted(more.model, sites) as calls,
        pytest.raises(ScheduleError, match="set to 6 evaluations, but the schedule is for 5"),
    ):
        sample()
    assert not calls


@every_setting
def test_latents_are_in_the_layout_of_the_denoiser(setting: Setting, other: StableAudioPipeline):
    sampler = setting.sampler(other)
    latents = sampler(1)
    assert latents.dtype == torch.float32
    assert latents.shape == ((2, 16, 8) if setting.length_first else (2, 8, 16))
    sound = sampler.decode(latents)
    assert sound.shape == (2, 1, 16 * 8)
    assert sound.abs().max() <= 1
    assert sampler.sample_rate == SAMPLE_RATE


def decoding(sampler: PromptSampler) -> Callable[[int], Tensor]:
    """Return a sampler as a user writes it, who does not ask for latents."""
    name = "audio_duration" if isinstance(sampler.pipe, AceStepPipeline) else None
    lengths = {"StableAudioPipeline": "audio_end_in_s", "StableAudio3Pipeline": "duration"}
    name = name or lengths.get(type(sampler.pipe).__name__, "audio_duration_s")

    def sample(seed: int) -> Tensor:
        return sampler.pipe(
            prompt=list(PROMPTS[:1]),
            num_inference_steps=len(ROW),
            generator=torch.Generator().manual_seed(seed),
            output_type="pt",
            **{name: SECONDS},
        ).audios

    return sample


@pytest.mark.slow
@every_setting
def test_calibrated_planned_fitted_and_applied(setting: Setting, other: StableAudioPipeline):
    sampler = setting.sampler(other)
    taken = sampler
    calibration = calibrate(taken, seeds=[1], sensitivity=1, max_lag=3, progress=False)
    assert calibration.evaluations == len(ROW)
    assert calibration.fingerprint.guidance == {"guidance_scale": 3.0}
    if not setting.affine:
        assert "affine" in calibration.remark or "linear" in calibration.remark
        return
    assert calibration.remark == ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothCacheWarning)  # few evaluations, few samples
        schedule = plan(calibration, compute=0.7, target="denoiser")
    fitted = fit(taken, schedule, seeds=[1], progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", SmoothCacheWarning)
        with cached_pipeline(sampler.pipe, fitted, branches=sampler.branches) as stats:
            outputs = sampler(3)
    assert outputs.isfinite().all()
    assert 0 < stats.reuse_fraction < 1


@pytest.mark.slow
@every_setting
def test_what_is_decoded_is_the_final_latent(setting: Setting, other: StableAudioPipeline):
    """Turned into the denoiser's layout, else a solver that is affine would not look like one."""
    sampler = setting.sampler(other)
    taken = sampler_of(sampler.pipe, decoding(sampler), branches=sampler.branches)
    calibration = calibrate(taken, seeds=[1], sensitivity=1, max_lag=1, progress=False)
    assert (calibration.dynamics is not None) == setting.affine


def test_another_solver_of_a_pipeline_is_refused(other: StableAudioPipeline):
    with pytest.raises(PipelineError, match=r"by the scheduler that it has, CosineDPM.*'default'"):
        prompt_sampler(other, conditions=["rain"], steps=3, solver="dpmpp-2m")


def test_classes_are_refused_by_a_pipeline_of_prompts(other: StableAudioPipeline):
    with pytest.raises(PipelineError, match="StableAudioPipeline takes prompts, not 3"):
        prompt_sampler(other, conditions=[3], steps=3)


def test_a_pipeline_without_a_transformer_is_refused(other: StableAudioPipeline):
    with pytest.raises(PipelineError, match="Linear is neither a model that stable-audio-tools"):
        prompt_sampler(nn.Linear(1, 1), conditions=["rain"], steps=3)


def test_a_pipeline_with_a_unet_is_not_refused():
    """As AudioLDM and MusicLDM have one; whole evaluations need no adapter for it."""
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    pipe: Any = DDIMPipeline(unet.eval(), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    schedule = Schedule(evaluations=4, rows={"denoiser": (1, 0, 1, 1)})
    with cached_pipeline(pipe, schedule) as stats:
        pipe(num_inference_steps=4, output_type="np")
    assert (stats.computed, stats.reused) == ({"denoiser": 3}, {"denoiser": 1})


# ---------------------------------------------------------------------------- both libraries


def test_one_schedule_serves_both_libraries():
    """Their transformers are one model under two sets of names, and are skipped alike."""
    tools, diffusers = stable_audio_tools_twin(), stable_audio_twin()
    load_from_tools(diffusers, tools)
    row = (1, 0, 0, 1)
    names = {"self_attn": "attn1", "cross_attn": "attn2", "ff": "ff"}
    one = Schedule(evaluations=4, rows=dict.fromkeys(names, row))
    other = Schedule(evaluations=4, rows={names[kind]: r for kind, r in one.rows.items()})
    with torch.no_grad():
        plain = [(by_tools(tools, t), by_diffusers(diffusers, t)) for t in TIMESTEPS]
        with cached(tools, STABLE_AUDIO_TOOLS, one):
            given = [by_tools(tools, t) for t in TIMESTEPS]
        with cached(diffusers, STABLE_AUDIO, other):
            expected = [by_diffusers(diffusers, t) for t in TIMESTEPS]
    for ones, others in (*plain, *zip(given, expected, strict=True)):
        torch.testing.assert_close(ones, others, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(given[2], plain[2][0], rtol=1e-3, atol=1e-3)


TIMESTEPS = (0.9, 0.7, 0.5, 0.3)


def stable_audio_tools_twin() -> Any:
    return stable_audio_tools_model().model.model


def stable_audio_twin() -> Any:
    model = StableAudioDiTModel(
        sample_size=16,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=32,
        num_attention_heads=2,
        num_key_value_attention_heads=1,
        cross_attention_dim=32,
        cross_attention_input_dim=32,
        global_states_input_dim=32,
        time_proj_dim=256,
    )
    return model.eval()


def load_from_tools(model: nn.Module, tools: nn.Module) -> None:
    """Give a transformer of diffusers the weights of one of stable-audio-tools."""
    weights = tools.state_dict()
    found = {"time_proj.weight": weights["timestep_features.weight"][:, 0]}
    plain = {
        "to_timestep_embed": "timestep_proj",
        "to_global_embed": "global_proj",
        "to_cond_embed": "cross_attention_proj",
        "preprocess_conv": "preprocess_conv",
        "postprocess_conv": "postprocess_conv",
        "transformer.project_in": "proj_in",
        "transformer.project_out": "proj_out",
    }
    for name, weight in weights.items():
        for start, instead in plain.items():
            if name.startswith(start + "."):
                found[instead + name.removeprefix(start)] = weight
    for block in range(2):
        here, there = f"transformer.layers.{block}.", f"transformer_blocks.{block}."
        for number, norm in enumerate(("pre_norm", "cross_attend_norm", "ff_norm"), 1):
            found[f"{there}norm{number}.weight"] = weights[f"{here}{norm}.gamma"]
            found[f"{there}norm{number}.bias"] = weights[f"{here}{norm}.beta"]
        parts = {
            "attn1.to_q attn1.to_k attn1.to_v": "self_attn.to_qkv",
            "attn2.to_q": "cross_attn.to_q",
            "attn2.to_k attn2.to_v": "cross_attn.to_kv",
            "attn1.to_out.0": "self_attn.to_out",
            "attn2.to_out.0": "cross_attn.to_out",
            "ff.net.0.proj": "ff.ff.0.proj",
            "ff.net.2": "ff.ff.2",
        }
        for targets, source in parts.items():
            names = targets.split()
            for kind in ("weight", "bias"):
                weight = weights.get(f"{here}{source}.{kind}")
                if weight is not None:
                    for name, piece in zip(names, weight.chunk(len(names)), strict=True):
                        found[f"{there}{name}.{kind}"] = piece
    model.load_state_dict(found)


def inputs(timestep: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    turned = torch.tensor(timestep)
    start, end = torch.randn(2, 1, 8, 16, generator=generator)
    latent = turned.cos() * start + turned.sin() * end
    return (
        latent,
        torch.randn(1, 5, 32, generator=generator),
        torch.randn(1, 32, generator=generator),
    )


def by_tools(model: nn.Module, timestep: float) -> Tensor:
    latent, text, whole = inputs(timestep)
    return model(latent, torch.tensor([timestep]), cross_attn_cond=text, global_embed=whole)


def by_diffusers(model: nn.Module, timestep: float) -> Tensor:
    latent, text, whole = inputs(timestep)
    rotary: Any = get_1d_rotary_pos_embed(32, 17, use_real=True, repeat_interleave_real=False)
    return model(
        latent,
        torch.tensor([timestep]),
        encoder_hidden_states=text,
        global_hidden_states=whole[:, None],
        rotary_embedding=rotary,
        return_dict=False,
    )[0]
