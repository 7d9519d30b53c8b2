"""What the command lines of all modalities share; needs the extra `smoothcache-core[cli]`.

A modality package says what it samples (`source.Source`), with what (`sampler.Sampler`) and what
becomes of the samples (`modality.Modality`), and gets its program from `commands.command_line`.

`commands` are dataclasses, one file for each: a field is an option, annotated with its help. They
and what they are made of (`app`, `command`, `known`, `modality`, `options`, `sizes`, `source`) load
nothing heavy, so that help is shown at once. What a command does is in the file of its verb
(`planning`, `fitting`, ...), which is loaded when it runs.
"""
