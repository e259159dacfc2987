#!/usr/bin/env bash
# "Does L1 help this network, and how much of it?", from the question to its verdict, on the 5,000 images that come with
# the package; 10 minutes on 2 cores. Settings that you append are passed to both trainings:
#
#   bash question_to_verdict.sh
#   bash question_to_verdict.sh norm=gbn
set -euo pipefail

search() {
    python -m reg_sweep.train study=l1_search hydra.sweeper.n_trials=12 \
        data=mnist_5k schedule=onecycle optimizer.lr=0.1 epochs=3 "$@"
}

# 1. How much of it? Try twelve strengths on val images, each on one seed, and prune hopeless ones. The best of twelve
#    is partly the luckiest of twelve, so this is not a verdict.
search "$@"

# 2. Does it help? Compare the best three with no penalty, on seeds that the search did not use, until each is decided
#    or has eight seeds.
search confirm=true max_seeds=8 margin=0.005 "$@"

# 3. What was found? Write outputs/report/index.html, and print the verdict.
python -m reg_sweep.report outputs/
