"""A run's settings: types, defaults and ranges, and the callables that a config names."""
