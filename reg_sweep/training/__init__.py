"""Training: batches of images, norms, penalties, the training loop, and a run from its config to its record."""
