#!/usr/bin/env bash
# Gunicorn in front, the pipeline below it: wsgi_wrapper.py starts that once and stops it with Gunicorn.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
if [[ -x .venv/bin/gunicorn ]]; then PATH="$PWD/.venv/bin:$PATH"; fi

# Threads of one process; the pipeline's processes take fewer where that would be more than there are cores.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-8}
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-8}
export MKL_NUM_THREADS=${MKL_NUM_THREADS:-8}
export CUDA_LAUNCH_BLOCKING=0
export NCCL_DEBUG=WARN

# httpserver_workers of config/production.yaml, where there is one
configured=
if [[ -f config/production.yaml ]]; then
  configured=$(sed -n 's/^httpserver_workers:[[:space:]]*\([0-9][0-9]*\).*/\1/p' config/production.yaml)
fi
WORKERS=${WORKERS:-${configured:-4}}
export WEB_CONCURRENCY=$WORKERS # so that wsgi_wrapper.py knows it too
# uvicorn_worker.UvicornWorker, the successor of the deployment guide's uvicorn.workers, with our WebSocket settings.
WORKER_CLASS=${WORKER_CLASS:-light_tts.server.worker_class.AudioWorker}
HOST=${HOST:-0.0.0.0}
PORT=${PORT:-8080}
TIMEOUT=${TIMEOUT:-300}
KEEPALIVE=${KEEPALIVE:-5}

exec gunicorn -w "$WORKERS" \
  -k "$WORKER_CLASS" \
  -b "$HOST:$PORT" \
  --timeout "$TIMEOUT" \
  --keep-alive "$KEEPALIVE" \
  --access-logfile - \
  --error-logfile - \
  --no-control-socket \
  --preload \
  wsgi_wrapper:app
