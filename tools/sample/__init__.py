"""How full models are sampled by a schedule, in code that a user can copy."""
