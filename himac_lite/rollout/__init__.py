"""Items → blueprints → executions. Start with `play`; `rules` has the choices of a variant, `evaluate` the scores."""
