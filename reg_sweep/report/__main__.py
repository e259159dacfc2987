"""python -m reg_sweep.report DIR..."""

from reg_sweep.report.command import main

if __name__ == "__main__":
    raise SystemExit(main())
