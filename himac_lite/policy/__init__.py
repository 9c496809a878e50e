"""One causal language model in several roles: prompts, decoding and the update. Start with `model` and `update`."""
