"""A run's settings: types, defaults, ranges, and targets that a config names."""
