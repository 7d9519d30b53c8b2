"""The portable description of what is computed and how the rest is filled."""
