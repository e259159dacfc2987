"""What ties Hydra to the command: overrides, errors, and what Hydra offers under private names alone."""
