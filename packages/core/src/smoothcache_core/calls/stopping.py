"""Ending a run of somebody else's sampler early."""


class Stop(BaseException):
    """Ends a run of the sampler early; not an `Exception`, so that nobody handles it."""
