# Where the sites of known models are: one line per adapter.
from .adapters import (
    ADAPTERS as ADAPTERS,
    ALLEGRO as ALLEGRO,
    COGVIDEOX as COGVIDEOX,
    COSMOS as COSMOS,
    EASY_ANIMATE as EASY_ANIMATE,
    HUNYUAN_VIDEO as HUNYUAN_VIDEO,
    HUNYUAN_VIDEO15 as HUNYUAN_VIDEO15,
    KANDINSKY5 as KANDINSKY5,
    LATTE as LATTE,
    LTX2 as LTX2,
    LTX_VIDEO as LTX_VIDEO,
    MOCHI as MOCHI,
    OPEN_SORA as OPEN_SORA,
    OPEN_SORA2 as OPEN_SORA2,
    SANA_VIDEO as SANA_VIDEO,
    SKYREELS_V2 as SKYREELS_V2,
    WAN as WAN,
    adapter_for as adapter_for,
)

# Clips as files, as pictures, and for VBench.
from .clip_files import save_clip as save_clip
from .clip_sheets import side_by_side as side_by_side

# Pipelines of diffusers and Open-Sora's, and the small model that comes with this package.
from .loading import load_pipeline as load_pipeline, shipped_folder as shipped_folder

# What clips are compared by.
from .metrics import clip_metrics as clip_metrics, clip_summaries as clip_summaries
from .perceptual import load_lpips as load_lpips

# What is known of how to run one, and running it by a schedule.
from .pipelines import cached_pipeline as cached_pipeline, sampler_of as sampler_of

# Sampling from seeds.
from .sampling import PromptSampler as PromptSampler, prompt_sampler as prompt_sampler
from .vbench import export_for_vbench as export_for_vbench

__all__: list[str]
__version__: str
