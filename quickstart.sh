#!/usr/bin/env bash
# Installs Light-TTS into .venv and starts what there is to start; ./quickstart.sh --help says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=scripts/lib/setup.sh
source scripts/lib/setup.sh

usage() {
  cat <<'TEXT'
Usage: ./quickstart.sh [ARGUMENT...]   install into .venv, then start the server on the bundled voice
       ./quickstart.sh --setup         only install
       ./quickstart.sh --help

Where this version has no server, it speaks a sentence into quickstart.wav instead. ARGUMENTs are passed on to the
server, or to `light-tts say`; with `--model_dir DIR` the model in DIR is used and not the bundled voice.

LIGHT_TTS_TORCH=cpu|gpu|auto   which build of torch to install (auto: the GPU build where a GPU is)
TEXT
}

SENTENCE="你好,欢迎使用。 Hello, and welcome to Light-TTS."

has_argument() {
  local wanted=$1 argument
  shift
  for argument in "$@"; do
    [[ $argument == "$wanted" || $argument == "$wanted="* ]] && return 0
  done
  return 1
}

bundled_voice() {
  local yaml
  for yaml in light_tts/voices/*/cosyvoice[23].yaml; do
    [[ ! -f $yaml ]] || { dirname "$yaml" && return; }
  done
}

start_server() {
  has_argument --model_dir "$@" || set -- --model_dir "$(bundled_voice)" "$@"
  step "starting the server: python -m light_tts.server.api_server $*"
  exec "$VENV_PYTHON" -m light_tts.server.api_server "$@"
}

speak() {
  if ! has_argument -o "$@" && ! has_argument --output "$@"; then
    local text=("$SENTENCE")
    [[ $# -le 2 ]] || text=() # more than a model directory: the text is among the arguments
    set -- "$@" -o quickstart.wav "${text[@]}"
  fi
  step "speaking: light-tts say $*"
  exec "$VENV/bin/light-tts" say "$@"
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
if [[ -z $(bundled_voice) ]] && ! has_argument --model_dir "$@"; then
  die "Light-TTS is installed, but this version comes without a voice, so there is nothing to speak with yet.
Give it a model directory in the layout of CosyVoice2-0.5B or Fun-CosyVoice3-0.5B:
    ./quickstart.sh --model_dir DIR
    $VENV/bin/light-tts say --model_dir DIR \"Hello.\" -o hello.wav"
elif [[ -f light_tts/server/api_server.py ]]; then
  start_server "$@"
else
  speak "$@"
fi
