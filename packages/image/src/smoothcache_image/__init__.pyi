# Where the sites of known models are: one line per adapter.
from .adapters import (
    ADAPTERS as ADAPTERS,
    DIT as DIT,
    FACEBOOK_DIT as FACEBOOK_DIT,
    FLUX as FLUX,
    HUNYUAN_DIT as HUNYUAN_DIT,
    LUMINA2 as LUMINA2,
    PIXART as PIXART,
    QWEN_IMAGE as QWEN_IMAGE,
    SANA as SANA,
    SD3 as SD3,
    Z_IMAGE as Z_IMAGE,
    adapter_for as adapter_for,
)

# Pipelines of diffusers, and the small models that come with this package.
from .loading import digits_folder as digits_folder, load_pipeline as load_pipeline

# What is known of how to run one, and running it by a schedule.
from .pipelines import cached_pipeline as cached_pipeline, sampler_of as sampler_of

# Sampling from seeds.
from .sampling import PromptSampler as PromptSampler, prompt_sampler as prompt_sampler

__all__: list[str]
__version__: str
