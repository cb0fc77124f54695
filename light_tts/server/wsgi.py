"""The pipeline below a Gunicorn that somebody else started: `gunicorn wsgi_wrapper:app`."""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil

from light_tts.child import die_with_parent
from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput, LightTTSError
from light_tts.flags import config_of
from light_tts.observe.log import set_up_logging
from light_tts.observe.metrics import METRICS_FOLDER
from light_tts.observe.multiprocess import MULTIPROC_DIR
from light_tts.server.fleet import StartError
from light_tts.server.prepare import prepare
from light_tts.server.run_dir import PREFIX, is_alive, owner_of, remove_run_dir
from light_tts.server.state import read_state
from light_tts.threads import calm_thread_waits

logger = logging.getLogger(__name__)

OPTIONS = "LIGHT_TTS_ARGS"
CONFIG_FILE = Path("config/production.yaml")
GUIDE_MODEL_DIR = Path("./pretrained_models/CosyVoice2-0.5B-latest")
GUIDE_OPTIONS = (
    f"--model_dir {GUIDE_MODEL_DIR} --decode_process_num 3 --decode_max_batch_size 3 --gpt_paral_num 150 "
    "--load_trt True --httpserver_workers 4"
)
_POLL_S = 0.2
_STOP_S = 15.0


def start_pipeline(module: str | None = None) -> Path:
    """Start what HTTP workers talk to, once per Gunicorn, and wait until it is ready. Returns its run_dir.

    With --preload this runs in Gunicorn's master; without, in each worker, of which the first one starts it. Ends
    this process, with the reason on standard error, if it cannot be started. module: as in `supervisor.Parts`
    """
    calm_thread_waits()
    try:
        config = wrapper_config(os.environ)
        set_up_logging(config.log_level, process=f"gunicorn-{os.getpid()}")
        run_dir = _start_in_worker(config, module) if _is_worker() else _start_in_master(config, module)
    except LightTTSError as error:
        sys.stderr.write(f"light-tts: {error.code}: {error}\n")
        raise SystemExit(1) from error
    os.environ["LIGHT_TTS_RUN_DIR"] = str(run_dir)
    os.environ[MULTIPROC_DIR] = str(run_dir / METRICS_FOLDER)
    return run_dir


def wrapper_config(environment: Mapping[str, str]) -> ServerConfig:
    """Flags in LIGHT_TTS_ARGS win over config/production.yaml; without both, the guide's. Raises InvalidInput."""
    arguments = shlex.split(environment.get(OPTIONS, ""))
    if CONFIG_FILE.is_file() and "--config" not in arguments:
        arguments = ["--config", str(CONFIG_FILE), *arguments]
    config = config_of(arguments or shlex.split(GUIDE_OPTIONS), prog=OPTIONS)
    if config.model_dir == GUIDE_MODEL_DIR and not GUIDE_MODEL_DIR.is_dir():
        logger.warning("%s does not exist: the bundled voice speaks", GUIDE_MODEL_DIR)
        config = replace(config, model_dir=None)
    workers = environment.get(
        "WEB_CONCURRENCY", ""
    )  # Gunicorn's own variable; run.sh sets it to what it passes
    return replace(config, httpserver_workers=int(workers)) if workers.isdecimal() else config


def _is_worker() -> bool:
    """Whether Gunicorn forked this process: a fork has the command line of its parent."""
    return psutil.Process(os.getppid()).cmdline() == psutil.Process().cmdline()


def _start_in_master(config: ServerConfig, module: str | None) -> Path:
    config, run_dir = prepare(config, listens=False)
    master = os.getpid()
    pipeline = _Headless(run_dir, master, module)
    pipeline.wait_and_watch()
    atexit.register(pipeline.stop)

    def after_fork() -> None:
        # The kernel's signal: a worker of uvicorn does not notice that Gunicorn was killed.
        die_with_parent(master)
        set_up_logging(config.log_level, process=f"http-{os.getpid()}")

    os.register_at_fork(after_in_child=after_fork)
    return run_dir


def _start_in_worker(config: ServerConfig, module: str | None) -> Path:
    """What is started ends with Gunicorn's master, not with this worker."""
    master = os.getppid()
    die_with_parent(master)
    set_up_logging(config.log_level, process=f"http-{os.getpid()}")
    run_dir = Path(tempfile.gettempdir()) / f"{PREFIX}gunicorn-{master}"
    run_dir.mkdir(mode=0o700, exist_ok=True)
    if run_dir.lstat().st_uid != os.getuid():
        raise InvalidInput(f"{run_dir} is no folder of this user")
    with _locked(run_dir):
        if owner_of(run_dir) is None:
            _, run_dir = prepare(replace(config, run_dir=run_dir), listens=False)
            _Headless(run_dir, master, module).wait_and_watch()
    return run_dir


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class _Headless:
    """A supervisor without HTTP workers as a child of this process; started again if it is killed."""

    def __init__(self, run_dir: Path, master: int, module: str | None) -> None:
        self._run_dir = run_dir
        self._owner = os.getpid()
        self._command = [sys.executable, "-m", "light_tts.server.supervisor", "--run_dir", str(run_dir)]
        self._command += ["--parent_pid", str(master), "--no_http", *(["--module", module] if module else [])]
        self._stopping = False
        self._process = self._spawn()

    def wait_and_watch(self) -> None:
        """Wait until it is ready, then watch it. Raises StartError."""
        while (state := read_state(self._run_dir)) is None or not (state.children and state.all_ready):
            if self._process.poll() is not None:
                raise StartError("the pipeline ended before it was ready, see its messages above")
            time.sleep(_POLL_S)
        threading.Thread(target=self._watch, name="watch-pipeline", daemon=True).start()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True)

    def _watch(self) -> None:
        """A supervisor that ends by itself takes its folder away; one that was killed leaves it."""
        while True:
            self._wait_for_end(None)
            if self._stopping or not self._run_dir.is_dir():
                return
            logger.error("the supervisor was killed, starting it again")
            self._process = self._spawn()

    def stop(self) -> None:
        """Gunicorn is done. Forked workers have this too, and leave it to their master."""
        if os.getpid() != self._owner:
            return
        self._stopping = True
        self._process.terminate()
        if not self._wait_for_end(_STOP_S):
            self._process.kill()
        remove_run_dir(self._run_dir)

    def _wait_for_end(self, timeout_s: float | None) -> bool:
        # Not `wait`: Gunicorn's master collects the ends of all its children, also of ours.
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while is_alive(self._process.pid):
            if deadline is not None and time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True
