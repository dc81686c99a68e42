#!/usr/bin/env bash
#SBATCH --job-name=artefact-train
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#
#   sbatch scripts/slurm_train.sh configs/convnext_tiny.yaml [--data FOLDER] [KEY=VALUE...]
#
# One process a task, one GPU each; batch_size counts for each. Before the time limit the run is saved and the job goes
# back into the queue; it goes on by itself. Submitted again, it goes on, too: another run needs another run.output.
set -euo pipefail
# Slurm runs a copy of this file; the job's record says where it lies.
script=$(scontrol show job "${SLURM_JOB_ID:-}" 2>&1 | sed -n 's/^ *Command=\(.*\.sh\).*/\1/p')
recipe=$(cd "$(dirname "${script:-$0}")/.." && pwd)
source "$recipe/../slurm.sh"

train "$python" "$recipe/src/train.py" --continue --config "${1:?say which config, e.g. configs/convnext_tiny.yaml}" "${@:2}"
