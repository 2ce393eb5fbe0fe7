#!/bin/bash
# All questions of a GPU in one go, within ten minutes, the most important ones first:
#
#     bash benchmarks/gpu.sh [FOLDER FOR THE RESULTS]
#
# PYTHON (default python3) needs mrcnn's requirements, torch and torchvision; PEER_PYTHON, if given, is the peer's.
# BACKENDS (default "jax torch") are those of Keras; LIMIT (default 570) is the time for everything in seconds.
# OPTIONS="--quick" tries the script with a tiny network; PATIENCE=10 gives each question ten times its time.
# A question that runs out of time keeps what it has measured; the log of all is FOLDER/gpu.log.
set -u
cd "$(dirname "$0")/.."
folder=${1:-benchmarks/results/gpu}
python=${PYTHON:-python3}
backends=${BACKENDS:-jax torch}
first=${backends%% *}
end=$((SECONDS + ${LIMIT:-570}))
mkdir -p "$folder"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 KERAS_BACKEND=$first
# The same networks are compiled in several questions.
export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$(mktemp -d)}

# ask NAME SECONDS MODULE OPTIONS...: run one question, at most so long and not past the end.
ask() {
  # shellcheck disable=SC2086 (OPTIONS is a list)
  local name=$1 most=$(($2 * ${PATIENCE:-1})) module=$3 left=$((end - SECONDS))
  shift 3
  [ "$left" -gt 20 ] || { echo "no time left for $name"; return; }
  [ "$most" -lt "$left" ] || most=$left
  echo "== $name, at most $most s: benchmarks.$module $*"
  timeout -k 5 "$most" "$python" -m "benchmarks.$module" --output "$folder/$name.json" "$@" ${OPTIONS:-} ||
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
    ask inference 150 inference $full --batches 8 --backends $backends $peer --repeats 10 --warmup 3
    ask training_8 150 training $full --batches 8 --steps 10 --backends "$first" $peer --repeats 5 --warmup 2
    ask training_16 120 training $full --batches 16 --steps 10 --backends "$first" $peer --repeats 5 --warmup 2
    ask loader 30 data_pipeline --batch 8 --workers 4 "$cores" $processes --repeats 40 --warmup 5
    ask train_with_loader 80 training $full --batches 8 --steps 40 --loader "$cores" $processes --backends "$first"
    ask loader_jpeg 40 data_pipeline --batch 8 --workers "$cores" $processes --jpeg --picture 750 1000 --repeats 40 --warmup 5
    ask memory 80 memory --precisions bfloat16 --sizes 1024 --detect-batches 8 --train-batches 8 --backends "$first" $peer
    ask training_torch 100 training $full --batches 8 --steps 10 --backends torch --repeats 5 --warmup 2
    ask variants 100 inference $full --batches 8 --backends "$first" $peer --peer-variants compiled channels_last --repeats 10
    ask latency 100 inference $full --batches 1 --backends "$first" $peer --networks resnet50 light --repeats 20
  }
} 2>&1 | tee "$folder/gpu.log"
