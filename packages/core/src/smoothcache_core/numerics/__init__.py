"""Array mathematics that knows nothing of caching."""
