"""The measured value: mergeable, saved as one file. Knows nothing of how it was measured."""
