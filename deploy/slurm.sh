#!/usr/bin/env bash
# A search on the nodes of one Slurm allocation. From the repository's root, on a file system that all nodes share:
#
#     sbatch deploy/slurm.sh --space architectures.yaml --time 20h        # all that follows the file is for search.run
#
# The same command again goes on. Two minutes before its time is up the search is told to stop; it ends with 130, "to be
# continued", and the job queues itself again. After a lost node or a preemption Slurm does (--requeue). `scancel` is
# final. The file of wafers must be readable on the first node; the environment, .venv/, on all.
#
# Run by us with Slurm 22.05 and without GPUs: on one node, and on two that were one machine (there with a folder of
# Ray's for each). Not run by us: on several machines, with GPUs, under preemption.
#
#SBATCH --job-name=wafer-search
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=12:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=wafer-search-%j.log

set -euo pipefail

: "${SLURM_JOB_ID:?submit this with sbatch}"
cd -- "$SLURM_SUBMIT_DIR"
python=${WAFER_SEARCH_PYTHON:-$PWD/.venv/bin/python}

# The token is new for each attempt and reaches the nodes by a file on the shared home that only its owner can read, so
# it stands in no command line and in no environment.
secrets=${WAFER_SEARCH_SECRETS:-$HOME/.wafer-search}
token=$secrets/token-$SLURM_JOB_ID
(
    umask 077
    mkdir -p -- "$secrets"
    rm -f -- "$token"
    "$python" -c 'import secrets; print(secrets.token_hex(32), end="")' > "$token"
)
unset RAY_AUTH_TOKEN RAY_ADDRESS
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$token RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
host=$(getent ahostsv4 "${nodes[0]}" | awk 'NR == 1 {print $1}' || true)
if [[ -z $host || $host == 127.* ]]; then # Debian gives a host's own name a loopback address
    host=$(hostname -I | awk '{print $1}')
fi
# Other jobs may run on these nodes: no port is Ray's default one, and /tmp/ray stays theirs.
read -r gcs client dashboard < <("$python" -c '
import socket
sockets = [socket.create_server(("", 0)) for _ in range(3)]
print(*(one.getsockname()[1] for one in sockets))')
address=$host:$gcs
temporary=/tmp/ray-$SLURM_JOB_ID
cpus=${SLURM_CPUS_PER_TASK:-1}
gpus=${SLURM_GPUS_ON_NODE:-0}
head_cpus=$((cpus > 3 ? cpus - 2 : cpus)) # the driver and Ray's head are on the first node, too

steps=()
running=
is_stopping=no
is_unfinished=no

# shellcheck disable=SC2329
stop() {
    is_stopping=yes
    if [[ -n $running ]]; then
        kill -TERM "$running" 2> /dev/null || true
    fi
}

# shellcheck disable=SC2329
clean_up() {
    local status=$?
    trap '' TERM INT
    rm -f -- "$token"
    if ((${#steps[@]})); then
        kill -TERM "${steps[@]}" 2> /dev/null || true # `srun` has every process of its step killed
        wait "${steps[@]}" || true
        srun --ntasks="${#nodes[@]}" --ntasks-per-node=1 --overlap rm -rf -- "$temporary" \
            || rm -rf -- "$temporary" # a cancelled job starts no step: the folders of other nodes stay
    fi
    # Slurm still calls a job running whose time is nearly up, but not one that was cancelled.
    if [[ $is_unfinished == yes && $(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T) == RUNNING ]]; then
        echo "the search is not over; job $SLURM_JOB_ID queues itself again"
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$status"
}
trap stop TERM INT
trap clean_up EXIT

# Run a command to its end, and pass SIGTERM on to it; bash itself would wait for it first.
run() {
    local status=0
    "$@" &
    running=$!
    wait "$running" || status=$?
    while kill -0 "$running" 2> /dev/null; do # a signal ended `wait`, not the command
        status=0
        wait "$running" || status=$?
    done
    running=
    return "$status"
}

# Ray on one node, as a step of the job, so that Slurm counts its processes and ends them with the job.
start_ray() {
    local node=$1
    shift
    # shellcheck disable=SC2016 # expanded on the node
    srun --nodes=1 --ntasks=1 --nodelist="$node" --cpus-per-task="$cpus" --overlap bash -c '
        set -eu
        python=$1 temporary=$2
        shift 2
        rm -rf -- "$temporary"
        mkdir -m 700 -- "$temporary" # Ray opens its own folder to all, so that lies inside
        agent=$("$python" -c "import socket; print(socket.create_server((\"\", 0)).getsockname()[1])")
        exec "$python" -m ray.scripts.scripts start --block --disable-usage-stats --temp-dir "$temporary/ray" \
            --dashboard-agent-listen-port "$agent" --num-gpus "$0" "$@"
    ' "$gpus" "$python" "$temporary" "$@" &
    steps+=("$!")
}

# A search counts its slots once, when it begins: every node must be there by then.
# shellcheck disable=SC2329
wait_for_nodes() {
    exec "$python" - "$address" "${#nodes[@]}" <<'PYTHON'
import logging, socket, sys, time

import ray

address, wanted = sys.argv[1], int(sys.argv[2])
host, _, port = address.rpartition(":")
until = time.monotonic() + 300
joined = 0
while time.monotonic() < until and joined < wanted:
    time.sleep(1)
    try:
        if not ray.is_initialized():
            socket.create_connection((host, int(port)), timeout=5).close()
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        joined = sum(node["Alive"] for node in ray.nodes())
    except (OSError, RuntimeError, ValueError) as error:
        print(f"waiting for Ray at {address}: {error}", file=sys.stderr)
if joined < wanted:
    sys.exit(f"error: {joined} of {wanted} nodes joined Ray within 5 minutes")
PYTHON
}

start_ray "${nodes[0]}" --head --node-ip-address "$host" --port "$gcs" --ray-client-server-port "$client" \
    --include-dashboard false --dashboard-port "$dashboard" --num-cpus "$head_cpus"
for node in "${nodes[@]:1}"; do
    start_ray "$node" --address "$address" --num-cpus "$cpus"
done

status=0
run wait_for_nodes || status=$?
if [[ $status == 0 && $is_stopping == no ]]; then
    run "$python" -m search.run "$@" --address "$address" || status=$?
fi
if [[ $status == 130 || ($is_stopping == yes && $status != 0) ]]; then
    is_unfinished=yes
fi
exit "$status"
