"""A research loop over reg_sweep's own trainer: 20 changes, five of them real. python research_loop.py DIR

Each change is a list of settings for the trainer. Kept changes stay, and the next change is tried on top of them. The
loop judges by val_loss. Test images decide nothing, so the final test score is not biased by the loop. The loop takes
half an hour; if it is killed, the same command resumes it. Its output is in docs/results/loop_example.txt. To try other
changes, add a file after DIR with one change per line, as `description | settings`.
"""

import subprocess
import sys
from pathlib import Path

CHANGES = """\
rename the run                      | name=renamed
a penalty of nothing                | l1=1e-12
learning rate 0.1                   | optimizer.lr=0.1
momentum 0.9 with one more digit    | optimizer.momentum=0.90001
a penalty of next to nothing        | l2=1e-9
L1 of 0.001                         | l1=0.001
rename the run again                | name=renamed_again
learning rate times 1.00001         | optimizer.lr=0.100001
batches of 64 images                | batch_size=64
nearly no L1                        | l1=1e-9
nearly no L1, twice                 | l1=2e-9
no norm                             | norm=none
decay of next to nothing            | l2=2e-9
dropout 0.05 with one more digit    | model.dropout=0.05001
no dropout                          | model.dropout=0
nearly no L1, three times           | l1=3e-9
nearly no decay, three times        | l2=3e-9
rotation 7.001                      | data.rotation=7.001
brightness 0.1001                   | data.brightness=0.1001
contrast 0.1001                     | data.contrast=0.1001
"""
LOOP = [sys.executable, "-m", "reg_sweep.loop"]


def trainer(folder: Path, settings: list[str]) -> list[str]:
    """The arguments that name the score's place and the command that trains."""
    run = folder / "runs" / f"{'+'.join(settings).replace('/', '_') or 'baseline'}-{{seed}}"
    program = [sys.executable, "-m", "reg_sweep.train", "data=mnist_5k", "epochs=2", "runtime.threads=1"]
    where = [f"hydra.run.dir='{run}'", "seed={seed}"]
    return ["--score-from", f"json:{run}/run.json:last.val_loss", "--", *program, *where, *settings]


def main(folder: Path, changes: str) -> None:
    """Start or resume the loop."""
    folder.mkdir(parents=True, exist_ok=True)
    ledger = str(folder / "loop.jsonl")
    subprocess.run([*LOOP, "init", ledger, "--score", "val_loss", "--lower"], check=True)
    subprocess.run([*LOOP, "baseline", ledger, *trainer(folder, [])], check=True)
    kept: list[str] = []
    for line in changes.splitlines():
        change, _, settings = (part.strip() for part in line.partition("|"))
        tried = merged(kept, settings.split())
        attempt = [*LOOP, "try", ledger, "--change", change, "--digest", "+".join(tried)]
        answer = subprocess.run([*attempt, *trainer(folder, tried)]).returncode
        if answer == 3:  # an error, already reported
            raise SystemExit(answer)
        kept = tried if answer == 0 else kept
    subprocess.run([*LOOP, "status", ledger], check=True)
    subprocess.run([*LOOP, "report", ledger], check=True)
    print("kept settings:", *kept)


def merged(kept: list[str], new: list[str]) -> list[str]:
    """The kept settings plus the new ones; a new setting replaces a kept one of the same name."""
    names = {setting.partition("=")[0] for setting in new}
    return [setting for setting in kept if setting.partition("=")[0] not in names] + new


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).read_text() if len(sys.argv) > 2 else CHANGES)
