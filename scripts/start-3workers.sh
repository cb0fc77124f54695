#!/usr/bin/env bash
# The deployment guide's high-performance configuration: 1 LLM and 3 Decode processes; --help says more.
set -euo pipefail
CALLER_FOLDER=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/setup.sh
source scripts/lib/setup.sh
# shellcheck source=scripts/lib/serve.sh
source scripts/lib/serve.sh

usage() {
  cat <<'TEXT'
Usage: scripts/start-3workers.sh [MODEL_DIR] [FLAG...]

Runs the server in the foreground until Ctrl-C. FLAGs of the server (--port 9000, ...) win over those of this script.

MODEL_DIR   model directory, also as a variable (default ./pretrained_models/CosyVoice2-0.5B-latest; the bundled
            voice where that does not exist)

CUDA_VISIBLE_DEVICES   GPUs to use (default 0,1,2)
TEXT
}

case ${1:-} in
  -h | --help)
    usage
    exit
    ;;
esac

export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0,1,2}
PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$(pwd)"
export PYTHONPATH

start_options "$@"
use_project_python
warn_about_gpus 3

exec python -m light_tts.server.api_server \
  "${MODEL[@]}" \
  --host 0.0.0.0 \
  --port 8080 \
  --encode_process_num 1 \
  --encode_paral_num 6 \
  --decode_process_num 3 \
  --decode_paral_num 2 \
  --decode_max_batch_size 3 \
  --gpt_paral_num 150 \
  --gpt_paral_step_num 300 \
  --max_total_token_num 98304 \
  --max_req_total_len 32768 \
  --batch_max_tokens 12288 \
  --router_max_wait_tokens 6 \
  --cache_capacity 300 \
  --load_trt True \
  --mode triton_flashdecoding,triton_int8kv \
  --httpserver_workers 4 \
  --log_stats_interval 10 \
  "${MORE[@]}"
