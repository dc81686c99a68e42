# What the recipes' Slurm scripts share; they source it. Nothing here belongs to one cluster: partition, account, time,
# nodes, tasks and GPUs come from sbatch's flags or its variables (SBATCH_PARTITION, SBATCH_ACCOUNT, ...).
#
#   SEGWRIGHT_MODULES   modules to load, separated by blanks
#   SEGWRIGHT_PYTHON    the interpreter that has segwright; else python from PATH

for module in ${SEGWRIGHT_MODULES:-}; do
    module load "$module"
done
python=${SEGWRIGHT_PYTHON:-python}
if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then
    export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # srun does not take it from sbatch
fi

SAVED=85 # the exit status of a run that a signal ended and that goes on with --continue

# One process, whatever the job has.
alone() {
    srun --nodes=1 --ntasks=1 "$@"
}

# One process a task. Before the time limit Slurm sends USR1 to this shell (--signal=B:USR1@300 in the scripts), which
# passes it on; the run saves and leaves with 85, and the job goes back into the queue. A run that ends otherwise, also
# by scancel, does not.
train() {
    local asked=0 status=0 step
    srun --kill-on-bad-exit=0 --wait=60 "$@" &
    step=$!
    trap 'asked=1; kill -USR1 "$step"' USR1
    wait "$step" || status=$?
    if ((asked)); then # the signal ended the waiting, not the run
        status=0
        wait "$step" || status=$?
    fi
    if ((asked && status == SAVED)); then
        echo "the time limit is near: saved, and back into the queue"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    return "$status"
}
