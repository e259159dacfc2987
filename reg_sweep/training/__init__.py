"""Training: images to batches, norms, penalties, the loop, a run from its config to its record. The wing of torch."""
