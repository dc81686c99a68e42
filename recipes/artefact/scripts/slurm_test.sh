#!/usr/bin/env bash
#SBATCH --job-name=artefact-test
#SBATCH --output=%x-%j.out
#
#   sbatch scripts/slurm_test.sh configs/convnext_tiny.yaml [--data FOLDER] [KEY=VALUE...]
#
# One epoch, to see that everything works. Leaves it in logs/test_<config> and writes over it the next time.
set -euo pipefail
# Slurm runs a copy of this file; the job's record says where it lies.
script=$(scontrol show job "${SLURM_JOB_ID:-}" 2>&1 | sed -n 's/^ *Command=\(.*\.sh\).*/\1/p')
recipe=$(cd "$(dirname "${script:-$0}")/.." && pwd)
source "$recipe/../slurm.sh"

config=${1:?say which config, e.g. configs/convnext_tiny.yaml}
train "$python" "$recipe/src/train.py" --config "$config" train.epochs=1 \
    run.output="logs/test_$(basename "$config" .yaml)" run.overwrite=true "${@:2}"
