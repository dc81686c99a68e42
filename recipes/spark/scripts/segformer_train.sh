#!/usr/bin/env bash
#SBATCH --job-name=segformer-train
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@300
#
#   SEGFORMER_VARIANT=b3 IMAGE_SIZE=640 sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 scripts/segformer_train.sh [KEY=VALUE...]
#
# One process a task, one GPU each. Before the time limit the run is saved and the job goes back into the queue; it goes
# on by itself. Submitted again, it goes on, too: another run needs another save_path.
set -euo pipefail
# Slurm runs a copy of this file; the job's record says where it lies.
script=$(scontrol show job "${SLURM_JOB_ID:-}" 2>&1 | sed -n 's/^ *Command=\(.*\.sh\).*/\1/p')
recipe=$(cd "$(dirname "${script:-$0}")/.." && pwd)
source "$recipe/../slurm.sh"

train "$python" "$recipe/train_segformer.py" --continue --config "${CONFIG:-$recipe/config_segformer.yaml}" \
    ${SEGFORMER_VARIANT:+"model.variant=$SEGFORMER_VARIANT"} ${IMAGE_SIZE:+"training.image_size=$IMAGE_SIZE"} "$@"
