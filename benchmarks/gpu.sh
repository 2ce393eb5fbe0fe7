#!/bin/bash
# Run all benchmarks of a GPU within ten minutes, the most important ones first:
#
#     bash benchmarks/gpu.sh [FOLDER FOR THE RESULTS]
#
# PYTHON (default python3) needs the requirements of mrcnn, torch and torchvision. PEER_PYTHON, if set, runs the
# peer. BACKENDS (default "jax torch") are the backends of Keras. LIMIT (default 570) is the time in seconds for
# all benchmarks. OPTIONS="--quick" tries the script with a tiny network; PATIENCE=10 gives each benchmark ten
# times its time. A benchmark that runs out of time keeps what it has measured. The log is FOLDER/gpu.log.
set -u
cd "$(dirname "$0")/.."
folder=${1:-benchmarks/results/gpu}
python=${PYTHON:-python3}
backends=${BACKENDS:-jax torch}
first=${backends%% *}
end=$((SECONDS + ${LIMIT:-570}))
mkdir -p "$folder"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 KERAS_BACKEND=$first
# Several benchmarks compile the same networks.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$(mktemp -d)}

# measure NAME SECONDS MODULE OPTIONS...: run one benchmark for at most SECONDS, and not past the end.
measure() {
  # shellcheck disable=SC2086 (OPTIONS is a list)
  local name=$1 limit=$(($2 * ${PATIENCE:-1})) module=$3 left=$((end - SECONDS))
  shift 3
  [ "$left" -gt 20 ] || { echo "no time left for $name"; return; }
  [ "$limit" -lt "$left" ] || limit=$left
  echo "== $name, at most $limit s: benchmarks.$module $*"
  timeout -k 5 "$limit" "$python" -m "benchmarks.$module" --output "$folder/$name.json" "$@" ${OPTIONS:-} ||
    echo "$name ended with $?"
  echo "== $name done, $((end - SECONDS)) s left"
}

{
  full="--precisions bfloat16 --sizes ${SIZE:-1024}"
  cores=$(nproc)
  processes="--set LOADER_PROCESSES=True"
  peer="--peer-python ${PEER_PYTHON:-$python}"
  # shellcheck disable=SC2086 (lists of options)
  {
    measure inference 150 inference $full --batches 8 --backends $backends $peer --repeats 10 --warmup 3
    measure training_8 150 training $full --batches 8 --steps 10 --backends "$first" $peer --repeats 5 --warmup 2
    measure training_16 120 training $full --batches 16 --steps 10 --backends "$first" $peer --repeats 5 --warmup 2
    measure loader 30 data_pipeline --batch 8 --workers 4 "$cores" $processes --repeats 40 --warmup 5
    measure train_with_loader 80 training $full --batches 8 --steps 40 --loader "$cores" $processes --backends "$first"
    measure loader_jpeg 40 data_pipeline --batch 8 --workers "$cores" $processes --jpeg --image-size 750 1000 --repeats 40 --warmup 5
    measure memory 80 memory --precisions bfloat16 --sizes 1024 --detect-batches 8 --train-batches 8 --backends "$first" $peer
    measure training_torch 100 training $full --batches 8 --steps 10 --backends torch --repeats 5 --warmup 2
    measure variants 100 inference $full --batches 8 --backends "$first" $peer --peer-variants compiled channels_last --repeats 10
    measure latency 100 inference $full --batches 1 --backends "$first" $peer --networks resnet50 light --repeats 20
  }
} 2>&1 | tee "$folder/gpu.log"
