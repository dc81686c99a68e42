#!/usr/bin/env bash
#SBATCH --job-name=segformer-inference
#SBATCH --output=%x-%j.out
#
#   MODEL_PATH=model_weights_segformer_b2/segformer_best sbatch scripts/segformer_inference.sh [--input FOLDER] [--output ZIP]
set -euo pipefail
# Slurm runs a copy of this file; the job's record says where it lies.
script=$(scontrol show job "${SLURM_JOB_ID:-}" 2>&1 | sed -n 's/^ *Command=\(.*\.sh\).*/\1/p')
recipe=$(cd "$(dirname "${script:-$0}")/.." && pwd)
source "$recipe/../slurm.sh"

alone "$python" "$recipe/inference_segformer.py" --weights "${MODEL_PATH:?say MODEL_PATH=.../segformer_best}" "$@"
