"""How one run of a sampler is made, recorded and seeded."""
