"""A causal language model in two roles: prompts, decoding, the update. Start with `model` (the policy) and `update`."""
