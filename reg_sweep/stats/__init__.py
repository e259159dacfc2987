"""The judge: numbers in, one frozen judgement out. Knows nothing of files, pages, Hydra or torch."""
