# shellcheck shell=bash
# Makes .venv and installs Light-TTS into it. Sourced from the repository root by quickstart.sh and scripts/check.
#
# LIGHT_TTS_TORCH=cpu|gpu|auto  which build of torch; auto (the default) takes the GPU build where a GPU is

VENV=.venv
VENV_PYTHON=$VENV/bin/python
STAMP=$VENV/light-tts.stamp            # what is installed; absent until an installation has finished
UNFINISHED=$VENV/light-tts.unfinished  # an installation is running, or was interrupted
SETUP_LOG=$VENV/setup.log

step() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }

die() {
  printf '\n%s\n' "$*" >&2
  exit 1
}

# setup_environment [EXTRA]: afterwards .venv holds light_tts with the optional dependencies EXTRA ("dev" or none).
setup_environment() {
  local extra=${1:-} flavour
  flavour=$(torch_flavour) || exit 1
  if is_current "$extra" "$flavour"; then
    step "$VENV is up to date"
    return
  fi
  # auto keeps the build that is there: the user may have chosen it in an earlier run
  [[ ${LIGHT_TTS_TORCH:-auto} == auto && $(stamped torch) == gpu ]] && flavour=gpu
  [[ $extra ]] || extra=$(stamped extra)
  unset PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX # they would install somewhere else
  # pip answers an interrupt with an ordinary exit status, after which this script would go on
  trap 'die "Interrupted. Run this again to start the installation afresh."' INT TERM
  prepare_venv
  rm -f "$STAMP"
  : >"$UNFINISHED"
  install_packages "$extra" "$flavour"
  write_stamp "$extra" "$flavour"
  rm -f "$UNFINISHED"
  trap - INT TERM
  step "$VENV is ready"
  [[ $flavour == cpu ]] || warn_unless_gpu_usable
}

torch_flavour() {
  case ${LIGHT_TTS_TORCH:-auto} in
    cpu | gpu) echo "$LIGHT_TTS_TORCH" ;;
    auto) if has_gpu; then echo gpu; else echo cpu; fi ;;
    *) die "LIGHT_TTS_TORCH is '$LIGHT_TTS_TORCH'; it must be cpu, gpu or auto" ;;
  esac
}

has_gpu() {
  [[ -e /dev/nvidia0 ]] || { command -v nvidia-smi && nvidia-smi -L | grep '^GPU '; } >/dev/null 2>&1
}

# The stamp has one "name=value" a line.
stamped() {
  [[ ! -f $STAMP ]] || sed -n "s/^$1=//p" "$STAMP"
}

write_stamp() {
  printf 'extra=%s\ntorch=%s\nroot=%s\nfiles=%s\n' "$1" "$2" "$PWD" "$(files_digest)" >"$STAMP"
}

# Of the files that say what to install, and the Python that it is installed for; empty if .venv does not run.
files_digest() {
  cat pyproject.toml constraints.txt scripts/lib/setup.sh | "$VENV_PYTHON" -ISc \
    'import hashlib, sys; print(sys.version.split()[0], hashlib.sha256(sys.stdin.buffer.read()).hexdigest())' 2>/dev/null
}

is_current() {
  local extra=$1 flavour=$2 has_extra has_torch
  [[ -f $STAMP && ! -e $UNFINISHED && $(stamped root) == "$PWD" ]] || return 1
  has_extra=$(stamped extra) has_torch=$(stamped torch)
  [[ -z $extra || $extra == "$has_extra" ]] || return 1
  [[ $flavour == "$has_torch" || (${LIGHT_TTS_TORCH:-auto} == auto && $has_torch == gpu) ]] || return 1
  [[ $(files_digest) == "$(stamped files)" ]]
}

# Reuses .venv where it is sound, else makes it anew.
prepare_venv() {
  local reason
  reason=$(venv_fault)
  if [[ -z $reason ]]; then
    step "updating $VENV ($("$VENV_PYTHON" -V))"
    return
  fi
  [[ -e $VENV || -L $VENV ]] && step "removing $VENV: $reason"
  local python
  python=$(find_python) || exit 1
  rm -rf "$VENV"
  step "making $VENV with $python ($("$python" -V))"
  mkdir "$VENV"
  : >"$UNFINISHED" # python -m venv fills the folder; if that is interrupted, the next run starts again
  "$python" -m venv "$VENV" || die "could not make $VENV; the lines above say why"
}

# Why .venv cannot be used, or nothing.
venv_fault() {
  if [[ ! -x $VENV_PYTHON ]]; then
    echo "it has no Python"
  elif [[ -e $UNFINISHED ]]; then
    echo "the last installation did not finish"
  elif [[ -f $STAMP && $(stamped root) != "$PWD" ]]; then
    echo "it was made for $(stamped root)"
  elif ! "$VENV_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    echo "its Python does not run, or is older than 3.11"
  elif ! "$VENV_PYTHON" -m pip --version >/dev/null 2>&1; then
    echo "it has no working pip"
  fi
}

# Prints the path of a Python >= 3.11 that can make virtual environments.
find_python() {
  local name candidate incomplete=
  for name in python3.11 python3.12 python3.13 python3 python; do
    while IFS= read -r candidate; do
      # a name on the PATH may be a launcher for a Python that is not there, so it is run
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue
      if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        printf '%s\n' "$candidate"
        return
      fi
      incomplete=${incomplete:-$candidate}
    done < <(type -aP "$name")
  done
  if [[ $incomplete ]]; then
    die "$incomplete has no venv module. On Debian and Ubuntu: apt-get install python3-venv"
  fi
  die "Light-TTS needs Python 3.11 or newer, and there is none on the PATH. On Debian and Ubuntu: apt-get install python3 python3-venv"
}

install_packages() {
  local extra=$1 flavour=$2 torch project=.
  torch=$(torch_requirement "$flavour")
  [[ -z $extra ]] || project=".[$extra]"
  : >"$SETUP_LOG"
  step "installing Light-TTS${extra:+ with the extra \"$extra\"} and $torch (log: $SETUP_LOG)"
  pip_install "$(pinned setuptools)" || pip_failed
  # --no-build-isolation: our own build uses the setuptools pinned above
  pip_install --no-build-isolation "$torch" -e "$project" || pip_failed
}

# "NAME==VERSION" as constraints.txt has it
pinned() { grep -E "^$1==" constraints.txt; }

torch_requirement() {
  local torch
  torch=$(pinned torch)
  if [[ $1 == gpu ]]; then
    echo "$torch,!=${torch#torch==}+cpu" # a CPU build that pip can see, or has installed, would do otherwise
  elif [[ $(uname -s) == Linux ]]; then
    echo "$torch+cpu"
  else
    echo "$torch"
  fi
}

pip_install() {
  # The variable, unlike -c, also binds what pip installs to build a package. Relative: pip splits it at spaces.
  PIP_CONSTRAINT=constraints.txt "$VENV_PYTHON" -m pip install --no-input --disable-pip-version-check \
    --progress-bar off "$@" </dev/null 2>&1 | tee -a "$SETUP_LOG" | show_progress
  return "${PIPESTATUS[0]}"
}

# One changing line on a terminal; elsewhere only the downloads that take long.
show_progress() {
  local line
  while IFS= read -r line; do
    if [[ -t 1 && $line =~ (Downloading|Installing|Building) ]]; then
      printf '\r\033[K        %.90s' "${line#"${line%%[! ]*}"}"
    elif [[ $line =~ Downloading.*\(([0-9]{3,}\.?[0-9]*\ MB|[0-9.]+\ GB)\) ]]; then
      step "${line#"${line%%[! ]*}"}"
    fi
  done
  [[ ! -t 1 ]] || printf '\r\033[K'
}

pip_failed() {
  if grep -Eq 'No matching distribution found for torch==[^ ]*\+cpu' "$SETUP_LOG"; then
    die "pip finds no CPU build of $(pinned torch). PyTorch keeps its CPU builds in an index of their own: set
PIP_EXTRA_INDEX_URL to the CPU index that the \"Get Started\" page of PyTorch shows, and run this again. Or take the
GPU build, which also runs without a GPU but is several GB, with LIGHT_TTS_TORCH=gpu."
  fi
  cat "$SETUP_LOG" >&2
  die "The installation failed; pip's own words are above. Nothing is left half-done: run this again to start afresh."
}

warn_unless_gpu_usable() {
  "$VENV_PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
    step "note: this build of torch finds no usable GPU, so Light-TTS will run on the CPU"
}
