#!/usr/bin/env bash
# Starts the server in the background and waits until it is healthy; --help says more.
set -euo pipefail
CALLER_FOLDER=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib/setup.sh
source scripts/lib/setup.sh
# shellcheck source=scripts/lib/serve.sh
source scripts/lib/serve.sh

usage() {
  cat <<'TEXT'
Usage: scripts/deploy.sh [MODEL_DIR] [DECODE_WORKERS] [HTTP_WORKERS]
       scripts/deploy.sh --status | --stop | --help

Checks the machine, writes config/production.yaml, starts ./run.sh in the background and waits until /healthz answers.

MODEL_DIR        model directory (default ./pretrained_models/CosyVoice2-0.5B-latest; the bundled voice where that
                 does not exist)
DECODE_WORKERS   Decode processes (default 3)
HTTP_WORKERS     Gunicorn workers (default 4)
--status         0: healthy, 1: running but not healthy, or dead without a word, 3: not running
--stop           lets accepted requests finish, then stops

Variables: CUDA_VISIBLE_DEVICES (default 0,1,2), OMP_NUM_THREADS (8), HOST (0.0.0.0), PORT (8080),
LIGHT_TTS_ARGS (further flags of the server, which win over config/production.yaml),
LIGHT_TTS_START_TIMEOUT_S (600), LIGHT_TTS_STOP_TIMEOUT_S (60), LIGHT_TTS_PID_FILE (default /var/run/light-tts.pid
or, where that cannot be written, light-tts.pid in the run directory of the user)
TEXT
}

LOG=logs/light-tts.log
CONFIG=config/production.yaml
SYSTEM_PID_FILE=/var/run/light-tts.pid
LAST_LINES=25 # of the log, shown after a failure

say() { printf '[%(%Y-%m-%d %H:%M:%S)T] %s\n' -1 "$*"; }

user_pid_file() {
  printf '%s/light-tts.pid\n' "${XDG_RUNTIME_DIR:-${XDG_STATE_HOME:-${HOME:-$PWD}/.local/state}/light-tts}"
}

# Where the PID goes
new_pid_file() {
  if [[ -n ${LIGHT_TTS_PID_FILE:-} ]]; then
    printf '%s\n' "$LIGHT_TTS_PID_FILE"
  elif [[ -w $SYSTEM_PID_FILE || (! -e $SYSTEM_PID_FILE && -w ${SYSTEM_PID_FILE%/*}) ]]; then
    printf '%s\n' "$SYSTEM_PID_FILE"
  else
    user_pid_file
  fi
}

# The PID file that there is, or nothing
existing_pid_file() {
  local file
  if [[ -n ${LIGHT_TTS_PID_FILE:-} ]]; then
    [[ ! -s $LIGHT_TTS_PID_FILE ]] || printf '%s\n' "$LIGHT_TTS_PID_FILE"
    return
  fi
  for file in "$SYSTEM_PID_FILE" "$(user_pid_file)"; do
    [[ ! -s $file ]] || { printf '%s\n' "$file" && return; }
  done
}

# is_server PID: whether that process is ours; after a crash the number may have gone to another program
is_server() {
  [[ $1 =~ ^[0-9]+$ ]] || return 1
  [[ $(ps -o stat= -p "$1" 2>/dev/null) != Z* ]] || return 1
  ps -o args= -p "$1" 2>/dev/null | grep -Eq 'run\.sh|gunicorn|light_tts'
}

base_url() {
  local host=${HOST:-0.0.0.0}
  [[ $host != 0.0.0.0 && $host != '::' ]] || host=127.0.0.1
  printf 'http://%s:%s\n' "$host" "${PORT:-8080}"
}

healthy() { curl --silent --fail --output /dev/null --max-time 5 --noproxy '*' "$(base_url)/healthz"; }

# What /readiness says, for people who wait
readiness() { curl --silent --max-time 5 --noproxy '*' "$(base_url)/readiness" || true; }

check_number() {
  [[ $2 =~ ^[1-9][0-9]?$ ]] || { echo "deploy.sh: $1 is '$2', it must be a number from 1 to 99" >&2 && exit 2; }
}

check_dependencies() {
  say "checking the machine"
  command -v curl >/dev/null || die "curl is not installed. On Debian and Ubuntu: apt-get install curl"
  use_project_python
  python -c 'import gunicorn' 2>/dev/null || die "gunicorn is not installed: run ./quickstart.sh --setup first"
  [[ -x run.sh ]] || die "run.sh is missing, or not executable"
  warn_about_gpus "$DECODE_WORKERS"
  check_not_running
}

check_not_running() {
  local file pid
  file=$(existing_pid_file)
  if [[ -n $file ]]; then
    pid=$(<"$file")
    ! is_server "$pid" || die "Light-TTS is already running (PID $pid, $file): scripts/deploy.sh --stop stops it"
  fi
  ! curl --silent --output /dev/null --max-time 5 --noproxy '*' "$(base_url)/" ||
    die "something else answers at $(base_url): stop it, or choose another port with PORT="
}

# yaml_line KEY TEXT
yaml_line() {
  local text=${2//\\/\\\\}
  printf '%s: "%s"\n' "$1" "${text//\"/\\\"}"
}

create_config() {
  say "writing $CONFIG"
  mkdir -p config logs
  {
    echo "# Written by scripts/deploy.sh. Any flag of the server may stand here; flags on the command line win."
    [[ -z $CHOSEN ]] || yaml_line model_dir "$CHOSEN"
    cat <<TEXT
decode_process_num: $DECODE_WORKERS
httpserver_workers: $HTTP_WORKERS
decode_max_batch_size: 3
gpt_paral_num: 150
load_trt: true
mode: ["triton_flashdecoding"]
log_level: "INFO"
TEXT
  } >"$CONFIG.new"
  if [[ -f $CONFIG ]] && ! cmp -s "$CONFIG" "$CONFIG.new"; then
    mv "$CONFIG" "$CONFIG.old"
    warn "$CONFIG was different: the former one is kept as $CONFIG.old"
  fi
  mv "$CONFIG.new" "$CONFIG"
}

start_service() {
  local pid_file
  pid_file=$(new_pid_file)
  mkdir -p "$(dirname "$pid_file")"
  export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0,1,2}
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
  export WORKERS=$HTTP_WORKERS
  say "starting Light-TTS: $DECODE_WORKERS Decode processes, $HTTP_WORKERS HTTP workers (log: $LOG)"
  nohup ./run.sh >>"$LOG" 2>&1 </dev/null &
  PID=$!
  printf '%s\n' "$PID" >"$pid_file"
  trap 'stop_failed_start "$pid_file"; die "interrupted: Light-TTS was stopped again"' INT TERM
  wait_until_healthy "$pid_file"
  trap - INT TERM
}

wait_until_healthy() {
  local limit=${LIGHT_TTS_START_TIMEOUT_S:-600} start=$SECONDS told=$SECONDS
  while ! healthy; do
    if ! kill -0 "$PID" 2>/dev/null; then
      start_failed "$1" "Light-TTS ended while it was starting"
    elif ((SECONDS - start >= limit)); then
      start_failed "$1" "Light-TTS was not healthy within $limit s (LIGHT_TTS_START_TIMEOUT_S)"
    fi
    if [[ -t 1 ]]; then
      printf '\r\033[K%4d s  %.100s' $((SECONDS - start)) "$(tail -n 1 "$LOG")"
    elif ((SECONDS - told >= 10)); then
      say "still starting after $((SECONDS - start)) s"
      told=$SECONDS
    fi
    sleep 0.5
  done
  [[ ! -t 1 ]] || printf '\r\033[K'
  kill -0 "$PID" 2>/dev/null || start_failed "$1" "Light-TTS ended, but something else answers at $(base_url)"
  say "healthy after $((SECONDS - start)) s (PID $PID, $1)"
}

stop_failed_start() {
  kill "$PID" 2>/dev/null || true
  wait_for_end "$PID" 10 || kill -KILL "$PID" 2>/dev/null || true
  rm -f "$1"
}

start_failed() {
  [[ ! -t 1 ]] || printf '\r\033[K'
  stop_failed_start "$1"
  printf '\nThe last lines of %s:\n' "$LOG" >&2
  tail -n "$LAST_LINES" "$LOG" >&2
  die "ERROR: $2; the lines above say why. Nothing is left running."
}

# wait_for_end PID SECONDS: whether the process ends in time
wait_for_end() {
  local end=$((SECONDS + $2))
  while is_server "$1"; do
    ((SECONDS < end)) || return 1
    sleep 0.2
  done
}

deploy() {
  DECODE_WORKERS=${2:-3} HTTP_WORKERS=${3:-4}
  check_number DECODE_WORKERS "$DECODE_WORKERS"
  check_number HTTP_WORKERS "$HTTP_WORKERS"
  CHOSEN=$(choose_model "${1:-$DEFAULT_MODEL_DIR}" "$CALLER_FOLDER")
  check_dependencies
  create_config
  start_service
  say "service: $(base_url)   health: $(base_url)/healthz   metrics: $(base_url)/metrics"
  say "stop it with scripts/deploy.sh --stop"
}

status() {
  local file pid
  file=$(existing_pid_file)
  if [[ -z $file ]]; then
    say "Light-TTS is not running"
    exit 3
  fi
  pid=$(<"$file")
  if ! is_server "$pid"; then
    say "Light-TTS is dead: no process $pid any more, though $file names it (last lines: tail $LOG)"
    exit 1
  fi
  say "Light-TTS is running: PID $pid, since$(ps -o etime= -p "$pid") ($file)"
  readiness
  echo
  healthy || { say "but $(base_url)/healthz does not say that it is well" && exit 1; }
  say "healthy at $(base_url)"
}

stop() {
  local file pid limit=${LIGHT_TTS_STOP_TIMEOUT_S:-60}
  file=$(existing_pid_file)
  if [[ -z $file ]]; then
    say "Light-TTS is not running"
    return
  fi
  pid=$(<"$file")
  if is_server "$pid"; then
    say "stopping Light-TTS (PID $pid): accepted requests are finished first"
    kill -TERM "$pid"
    if ! wait_for_end "$pid" "$limit"; then
      warn "it did not end within $limit s (LIGHT_TTS_STOP_TIMEOUT_S): killing it"
      kill -KILL "$pid" 2>/dev/null || true
      wait_for_end "$pid" 10 || die "process $pid cannot be killed"
    fi
  fi
  rm -f "$file"
  say "stopped"
}

case ${1:-} in
  -h | --help) usage ;;
  --status) status ;;
  --stop) stop ;;
  -*)
    echo "deploy.sh: unknown option '$1' (--help lists them)" >&2
    exit 2
    ;;
  *) deploy "$@" ;;
esac
