"""python -m reg_sweep.loop init LEDGER --score val_bpb --lower"""

from reg_sweep.loop.command import main

if __name__ == "__main__":
    raise SystemExit(main())
