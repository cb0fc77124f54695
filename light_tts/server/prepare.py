"""From what the user asked for to what the processes read: everything checked, nothing left open."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

from light_tts.config import ServerConfig
from light_tts.models.bundled import resolve_model_dir
from light_tts.observe.log import set_up_logging
from light_tts.server.placement import count_gpus, table
from light_tts.server.run_dir import make_run_dir, write_config
from light_tts.server.startup_checks import (
    check_lexicon,
    check_memory,
    check_model_dir,
    check_port,
    check_voices_dir,
)
from light_tts.voice_info import default_voices_dir

logger = logging.getLogger(__name__)


def prepare(config: ServerConfig, *, listens: bool) -> tuple[ServerConfig, Path]:
    """The configuration with nothing open, and the run_dir that holds it. listens: on its own host and port

    Raises LightTTSError, with the reason, for everything that can be known to fail before processes start.
    """
    set_up_logging(config.log_level, process="supervisor")
    if listens:
        check_port(config.host, config.port)
    model_dir = resolve_model_dir(config.model_dir).absolute()
    check_model_dir(model_dir)
    check_voices_dir(config.voices_dir)
    check_lexicon(config.lexicon, model_dir)
    voices_dir = config.voices_dir or default_voices_dir()
    config = replace(
        config,
        model_dir=model_dir,
        voices_dir=voices_dir.absolute() if voices_dir is not None else None,
        lexicon=config.lexicon.absolute() if config.lexicon is not None else None,
        num_gpus=count_gpus() if config.num_gpus is None else config.num_gpus,
        cpu_threads=_cpu_threads(config),
    )
    check_memory(config, model_dir)
    run_dir = make_run_dir(config.run_dir)
    config = replace(config, run_dir=run_dir)
    write_config(run_dir, config)
    logger.info("model %s, %d CPU threads per process", model_dir, config.threads_per_process)
    for line in table(config):
        logger.info("  %s", line)
    return config, run_dir


def _cpu_threads(config: ServerConfig) -> int:
    """OMP_NUM_THREADS may lower the share of a process, not raise it: it speaks of one process, not of many."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if config.cpu_threads is None and limit.isdecimal() and int(limit) > 0:
        return min(config.threads_per_process, int(limit))
    return config.threads_per_process
