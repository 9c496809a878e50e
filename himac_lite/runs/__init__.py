"""A training run. Start with `training` (the loop) and `folder` (what is on the disk)."""
