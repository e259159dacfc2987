"""The judge of a research loop, with its ledger on disk: `python -m reg_sweep.loop`, or `reg-sweep-loop`."""
