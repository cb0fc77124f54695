#!/usr/bin/env bash
# Installs Light-TTS into .venv and starts what there is to start; ./quickstart.sh --help says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib/setup.sh
source scripts/lib/setup.sh

usage() {
  cat <<'TEXT'
Usage: ./quickstart.sh [FLAG...]   install into .venv, then start the server on the bundled voice
       ./quickstart.sh --setup     only install
       ./quickstart.sh --help

The server runs in the foreground until Ctrl-C, at http://127.0.0.1:8080. FLAGs are its own (--port 9000, ...); with
`--model_dir DIR` the model in DIR is used and not the bundled voice. scripts/deploy.sh starts it in the background.

LIGHT_TTS_TORCH=cpu|gpu|auto   which build of torch to install (auto: the GPU build where a GPU is)
TEXT
}

# option NAME ARGUMENT...: prints the value of the last --NAME VALUE or --NAME=VALUE; fails if there is none
option() {
  local name=$1 value found=false
  shift
  while [[ $# -gt 0 ]]; do
    case $1 in
      "--$name="*) value=${1#*=} found=true ;;
      "--$name") value=${2:-} found=true ;;
    esac
    shift
  done
  $found && printf '%s\n' "$value"
}

has_model() {
  local yaml
  option model_dir "$@" >/dev/null && return
  option config "$@" >/dev/null && return # may name one
  for yaml in light_tts/voices/*/cosyvoice[23].yaml; do
    [[ ! -f $yaml ]] || return 0
  done
  return 1
}

# show_how URL PID: once the server answers, a command to try
show_how() {
  command -v curl >/dev/null || return 0
  until curl --silent --fail --noproxy '*' --output /dev/null "$1/readiness"; do
    kill -0 "$2" 2>/dev/null || return 0
    sleep 0.5
  done
  step "ready; try, in another terminal:
    curl $1/inference_zero_shot -F 'tts_text=你好,欢迎使用。 Hello, and welcome.' -F response_format=wav -o hello.wav"
}

start_server() {
  local host port
  host=$(option host "$@") || host=127.0.0.1
  port=$(option port "$@") || port=8080
  [[ $host != 0.0.0.0 ]] || host=127.0.0.1
  step "starting the server: python -m light_tts.server.api_server $*"
  show_how "http://$host:$port" $$ &
  exec "$VENV_PYTHON" -m light_tts.server.api_server "$@"
}

case ${1:-} in
  -h | --help)
    usage
    exit
    ;;
  --setup)
    [[ $# -eq 1 ]] || { echo "quickstart.sh: --setup takes no further arguments" >&2 && exit 2; }
    setup_environment
    exit
    ;;
esac

setup_environment
has_model "$@" || die "Light-TTS is installed, but this version comes without a voice, so there is nothing to speak with yet.
Give it a model directory in the layout of CosyVoice2-0.5B or Fun-CosyVoice3-0.5B:
    ./quickstart.sh --model_dir DIR"
start_server "$@"
