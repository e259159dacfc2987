"""The report's figures: arrays in, matplotlib figures out. The only place that knows matplotlib."""
