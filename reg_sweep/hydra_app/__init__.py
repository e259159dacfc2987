"""The command under Hydra: overrides, errors, and uses of Hydra's private names."""
