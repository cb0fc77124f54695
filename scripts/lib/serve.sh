# shellcheck shell=bash
# What the scripts that start the server share. Sourced from the repository root, after scripts/lib/setup.sh.

DEFAULT_MODEL_DIR=./pretrained_models/CosyVoice2-0.5B-latest # as the deployment guide has it

warn() { printf 'WARNING: %s\n' "$*" >&2; }

# Makes `python` and `gunicorn` those of .venv, where there is one.
use_project_python() {
  [[ ! -x $VENV_PYTHON ]] || PATH=$PWD/$VENV/bin:$PATH
  command -v python >/dev/null || die "there is no Python on the PATH and none in $VENV: run ./quickstart.sh --setup first"
  python -c 'import light_tts.server' 2>/dev/null || python -c 'import light_tts.server' >&2 ||
    die "$(command -v python) cannot import the server (see above): run ./quickstart.sh --setup first"
}

# absolute_path PATH FOLDER: PATH as seen from FOLDER
absolute_path() {
  case $1 in
    /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$2/${1#./}" ;;
  esac
}

# choose_model DIR CALLER_FOLDER: prints the directory to use, or nothing for the bundled voice. The guide's own
# directory may be missing, any other must exist.
choose_model() {
  local model_dir
  if [[ $1 == "$DEFAULT_MODEL_DIR" ]]; then
    if [[ -d $1 ]]; then
      printf '%s\n' "$1"
    else
      warn "$1 does not exist: using the bundled voice"
    fi
    return
  fi
  model_dir=$(absolute_path "$1" "$2")
  [[ -d $model_dir ]] || die "model directory $model_dir does not exist"
  printf '%s\n' "$model_dir"
}

gpu_count() {
  nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU ' || true
}

# warn_about_gpus DECODE_WORKERS
warn_about_gpus() {
  local gpus
  if ! has_gpu; then
    warn "no GPU found: running on the CPU"
    return
  fi
  gpus=$(gpu_count)
  ((gpus == 0 || gpus >= $1)) || warn "fewer GPUs ($gpus) than Decode workers ($1): some will share one"
}

# start_options ARGUMENT...: for the start scripts. Sets MODEL (options that choose the model) and MORE (options for
# the server, which win over the script's own). Reads CALLER_FOLDER and the variable MODEL_DIR.
start_options() {
  local model_dir=${MODEL_DIR:-$DEFAULT_MODEL_DIR} chosen
  if [[ $# -gt 0 && $1 != -* ]]; then
    model_dir=$1
    shift
  fi
  chosen=$(choose_model "$model_dir" "$CALLER_FOLDER") || exit 1
  # shellcheck disable=SC2034 # read by the scripts
  MODEL=() MORE=("$@")
  # shellcheck disable=SC2034
  [[ -z $chosen ]] || MODEL=(--model_dir "$chosen")
}
