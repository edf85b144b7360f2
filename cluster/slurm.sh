#!/usr/bin/env bash
# One run as a Slurm job: Ray on all nodes of the job, and `pmpo optimize` on it.
#
#   sbatch cluster/slurm.sh CONFIG RUN_DIR [--set KEY=VALUE ...]
#   sbatch --nodes=4 cluster/slurm.sh configs/bbh.yaml /shared/runs/bbh --set scorer.replicas=12
#
# Submit it from the top of the project, on storage that all nodes share; RUN_DIR must also be shared, or s3:// or gs://.
# Change the resources below, or pass them to sbatch. Submitted again with the same RUN_DIR, the run resumes; preempted
# or out of time, the job puts itself back into the queue.
#
# PMPO_VENV         the project's environment, on shared storage; default: .venv where the job was submitted
# PMPO_WAIT         seconds that all nodes may take to join; default: 600
# PMPO_HEAD_IP      the address at which other nodes reach the first one; default: that of its default route

#SBATCH --job-name=pmpo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=pmpo-%j.log
# The script gets a signal three minutes before its time is over.
#SBATCH --signal=B:TERM@180

set -euo pipefail

if [[ $# -lt 2 || -z ${SLURM_JOB_ID:-} ]]; then
    echo "error: run it as: sbatch cluster/slurm.sh CONFIG RUN_DIR [--set KEY=VALUE ...]" >&2
    exit 2
fi
config=$1 run_dir=$2
shift 2

venv=${PMPO_VENV:-$SLURM_SUBMIT_DIR/.venv}
if [[ ! -x $venv/bin/pmpo ]]; then
    echo "error: $venv/bin/pmpo is missing: run make install, or name the environment in PMPO_VENV" >&2
    exit 2
fi
export PATH=$venv/bin:$PATH

nodes=$SLURM_JOB_NUM_NODES
cpus=${SLURM_CPUS_PER_TASK:-1}
# The batch script runs on the first node of the job.
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head --lines=1)
ip=${PMPO_HEAD_IP:-$(python -c 'import ray.util; print(ray.util.get_node_ip_address())')}
address=$ip:6379
deadline=$((SECONDS + ${PMPO_WAIT:-600}))

# A password of this job: other users of the nodes can reach Ray's ports.
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token

daemons=()
# shellcheck disable=SC2329  # the trap below runs it
stop_ray() {
    if ((${#daemons[@]})); then
        kill -TERM "${daemons[@]}" 2> /dev/null || true
        wait "${daemons[@]}" || true
    fi
}
trap stop_ray EXIT

on_nodes() { # NUMBER OPTION... COMMAND: one Ray process tree per node, until the job ends
    local number=$1
    shift
    srun --overlap --nodes="$number" --ntasks="$number" --ntasks-per-node=1 --cpus-per-task="$cpus" "$@" &
    daemons+=($!)
}

check_daemons() {
    local pid
    for pid in "${daemons[@]}"; do
        if ! kill -0 "$pid" 2> /dev/null; then
            echo "error: Ray stopped on a node during its start; see the messages above" >&2
            exit 1
        fi
    done
}

on_nodes 1 --nodelist="$head" \
    ray start --head --node-ip-address="$ip" --port=6379 --num-cpus="$cpus" --disable-usage-stats --block
until ray health-check --address "$address" > /dev/null 2>&1; do
    check_daemons
    if ((SECONDS >= deadline)); then
        echo "error: the head on $head ($address) did not answer in time" >&2
        exit 1
    fi
    sleep 1
done

if ((nodes > 1)); then
    on_nodes $((nodes - 1)) --exclude="$head" \
        ray start --address="$address" --num-cpus="$cpus" --disable-usage-stats --block
fi
# In the background, so that the shell notices if Ray stops in the meantime.
python - "$address" "$nodes" "$((deadline - SECONDS))" "$SLURM_JOB_NODELIST" << 'PYTHON' &
import logging
import sys
import time

import ray

address, total, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
end = time.monotonic() + seconds
while True:
    names = sorted(node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"])
    if len(names) >= total:
        print(f"Ray: {len(names)} nodes, {ray.cluster_resources().get('GPU', 0):g} GPUs", file=sys.stderr)
        sys.exit(0)
    if time.monotonic() >= end:
        message = f"{len(names)} of {total} nodes joined Ray in time"
        print(f"error: {message}: {', '.join(names)}; the job has {sys.argv[4]}", file=sys.stderr)
        sys.exit(3)
    time.sleep(1)
PYTHON
waiting=$!
while kill -0 "$waiting" 2> /dev/null; do
    check_daemons
    sleep 1
done
wait "$waiting"

# A job that is out of time or preempted gets SIGTERM.
terminated=0
RAY_ADDRESS=$address pmpo optimize "$config" --run-dir "$run_dir" --log-format json "$@" &
pmpo=$!
trap 'terminated=1; kill -TERM "$pmpo" 2> /dev/null || true' TERM

# A trapped signal ends `wait` early: wait again until the process itself has ended.
code=0
wait "$pmpo" || code=$?
while kill -0 "$pmpo" 2> /dev/null; do
    code=0
    wait "$pmpo" || code=$?
done

if ((terminated && code)); then
    echo "stopped before the end; requeued to resume the run from $run_dir" >&2
    scontrol requeue "$SLURM_JOB_ID" || true
fi
exit "$code"
