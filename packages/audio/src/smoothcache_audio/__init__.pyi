# Where the sites of known models are: one line per adapter.
from .adapters import (
    ACE_STEP as ACE_STEP,
    ADAPTERS as ADAPTERS,
    LONGCAT_AUDIO as LONGCAT_AUDIO,
    MINIMAX_MUSIC as MINIMAX_MUSIC,
    STABLE_AUDIO as STABLE_AUDIO,
    STABLE_AUDIO_3 as STABLE_AUDIO_3,
    STABLE_AUDIO_TOOLS as STABLE_AUDIO_TOOLS,
    adapter_for as adapter_for,
)

# Models of both libraries, and the small model that comes with this package.
from .loading import load_model as load_model, shipped_folder as shipped_folder

# Judging sounds.
from .metrics import (
    digit_metrics as digit_metrics,
    digit_summaries as digit_summaries,
    waveform_metrics as waveform_metrics,
)

# What is known of how to run one, and running it by a schedule.
from .pipelines import cached_pipeline as cached_pipeline, sampler_of as sampler_of

# The metrics of papers.
from .published import (
    clap_summary as clap_summary,
    load_clap as load_clap,
    load_openl3 as load_openl3,
    load_passt as load_passt,
    openl3_summary as openl3_summary,
    passt_metric as passt_metric,
)

# Sampling from seeds.
from .sampling import PromptSampler as PromptSampler, prompt_sampler as prompt_sampler

# Sounds as files and pictures.
from .sounds import (
    SoundRow as SoundRow,
    save_wav as save_wav,
    spectrogram_sheet as spectrogram_sheet,
    waveform_overlay as waveform_overlay,
)

__all__: list[str]
__version__: str
