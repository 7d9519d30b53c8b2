"""What the command lines of all modalities share: `demo|calibrate|plan|fit|sample|evaluate`.

A modality package says what it samples (`source.Source`), with what (`modality.Sampler`) and what
becomes of the samples (`modality.Modality`), and gets its commands from `commands.command_line`.
Needs the extra `smoothcache-core[cli]`. `app`, `commands`, `modality`, `options`, `plan_options`,
`source` and `taking` load nothing heavy, so that help is shown at once.
"""
