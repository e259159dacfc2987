"""Replaces the trainer in reg_sweep-light."""

import sys


def main() -> None:
    """Exit with a message that says what to install."""
    sys.exit("reg_sweep.train: training needs torch, which reg_sweep-light leaves out: pip install reg_sweep")


if __name__ == "__main__":
    main()
