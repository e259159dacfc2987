"""The plugins for Hydra: the options `hydra/sweeper=optuna_study` and `hydra/launcher=population`."""
