"""What Hydra finds of reg_sweep: the option `hydra/sweeper=optuna_study`."""
