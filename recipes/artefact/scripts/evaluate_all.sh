#!/usr/bin/env bash
#SBATCH --job-name=artefact-evaluate
#SBATCH --output=%x-%j.out
#
#   sbatch scripts/evaluate_all.sh [RUN...]
#
# Evaluates the runs on their validation images and compares them; without names all of logs/ but the tests.
set -euo pipefail
# Slurm runs a copy of this file; the job's record says where it lies.
script=$(scontrol show job "${SLURM_JOB_ID:-}" 2>&1 | sed -n 's/^ *Command=\(.*\.sh\).*/\1/p')
recipe=$(cd "$(dirname "${script:-$0}")/.." && pwd)
source "$recipe/../slurm.sh"

runs=("$@")
if ((!$#)); then
    for best in logs/*/best.pth; do
        [[ ! -e $best || $best == logs/test_* ]] || runs+=("$(dirname "$best")")
    done
fi
if ((!${#runs[@]})); then
    echo "no run in logs/ has a best.pth; train first: sbatch scripts/slurm_train.sh configs/convnext_tiny.yaml" >&2
    exit 1
fi
for run in "${runs[@]}"; do
    alone "$python" "$recipe/src/evaluate.py" --weights "$run/best.pth" --split valid --output "$run/evaluation"
done
if ((${#runs[@]} > 1)); then
    alone "$python" -m segwright.cli compare --split valid --output logs/comparison "${runs[@]}"
fi
