"""python -m reg_sweep.compact outputs/RUN"""

from reg_sweep.compact.command import main

if __name__ == "__main__":
    raise SystemExit(main())
