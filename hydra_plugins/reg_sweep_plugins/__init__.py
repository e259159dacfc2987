"""The plugin that Hydra finds: the option `hydra/sweeper=optuna_study`."""
