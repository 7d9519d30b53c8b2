"""Which call of the denoiser is this: its evaluation, branch and run, told by evidence."""
