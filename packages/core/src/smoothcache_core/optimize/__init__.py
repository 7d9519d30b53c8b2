"""From costs to rows: dynamic programmes and local search that know no model."""
