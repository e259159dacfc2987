#!/usr/bin/env bash
# "Does L1 help this network, and how much of it?", from the question to its verdict on the 5,000 images that come with the
# installation; 10 minutes on 2 cores. Settings of a training that are typed behind it go to each of them:
#
#   bash question_to_verdict.sh
#   bash question_to_verdict.sh norm=gbn
set -euo pipefail

search() {
    python -m reg_sweep.train study=l1_search hydra.sweeper.n_trials=12 \
        data=mnist_5k schedule=onecycle optimizer.lr=0.1 epochs=3 "$@"
}

# 1. How much of it? Twelve strengths are tried and judged on val images, each on one seed; hopeless ones are given up.
#    The best of twelve is partly the luckiest of twelve: this is no verdict.
search "$@"

# 2. Does it help? The best three and no penalty, on seeds that the search has not seen, until each is clear or has eight.
search confirm=true max_seeds=8 margin=0.005 "$@"

# 3. What was found: outputs/report/index.html, and its first lines here.
python -m reg_sweep.report outputs/
