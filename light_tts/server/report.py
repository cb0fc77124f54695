"""What is told of a finished request: one line in the log, and the metrics."""

from __future__ import annotations

import asyncio
import logging
import time

from light_tts.errors import LightTTSError, status_of
from light_tts.observe import Metrics
from light_tts.server.request_state import RequestState

logger = logging.getLogger(__name__)


def outcome_of(error: BaseException | None) -> str:
    """ "ok", or the code of what ended a request."""
    if error is None:
        return "ok"
    if isinstance(error, LightTTSError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "internal_error"


def report_finished(state: RequestState, route: str, error: BaseException | None, metrics: Metrics) -> None:
    """Neither text nor audio of users is ever told."""
    seconds = time.perf_counter() - state.started_s
    outcome = outcome_of(error)
    metrics.requests.labels(outcome=outcome).inc()
    if outcome == "ok":
        _log_line(state, route, seconds)
        _observe(state, seconds, metrics)
    elif status_of(outcome) >= 500:
        logger.warning(
            "request failed route=%s code=%s after %.1f ms: %s", route, outcome, seconds * 1000, error
        )
    else:  # what was wrong may quote the user
        logger.info("request failed route=%s code=%s after %.1f ms", route, outcome, seconds * 1000)


def _log_line(state: RequestState, route: str, seconds: float) -> None:
    playback, planned = state.playback, state.planned
    cache = {None: "named", True: "hit", False: "miss"}[planned.cache_hit if planned else None]
    logger.info(
        "request done route=%s stream=%s text_chars=%d segments=%d tokens=%d voice=%s audio=%.2fs ttfa=%.1fms "
        "rtf=%.3f underrun=%.3fs stage http cost_time %.1fms",
        route,
        state.request.stream,
        state.num_text_chars,
        planned.num_segments if planned else 0,
        state.num_tokens,
        cache,
        playback.audio_s,
        _ttfa(state) * 1000,
        _rtf(state),
        playback.underrun_s,
        seconds * 1000,
    )


def _observe(state: RequestState, seconds: float, metrics: Metrics) -> None:
    playback = state.playback
    metrics.request_latency.observe(seconds)
    metrics.audio_e2e.observe(seconds)
    metrics.audio_seconds.inc(playback.audio_s)
    metrics.audio_duration.observe(playback.audio_s)
    if playback.audio_s > 0:
        metrics.rtf.observe(_rtf(state))
        metrics.audio_rtf.observe(_rtf(state))
    if not state.request.stream or playback.started_s is None:
        return
    metrics.ttfa.observe(_ttfa(state))
    metrics.audio_ttfp.observe(_ttfa(state))
    metrics.underrun.observe(playback.underrun_s)
    metrics.audio_underrun.observe(playback.underrun_s)
    if playback.continuous:
        metrics.continuity_ok.inc()
        metrics.audio_continuity_ok.inc()


def _ttfa(state: RequestState) -> float:
    started = state.playback.started_s
    return 0.0 if started is None else started - state.started_s


def _rtf(state: RequestState) -> float:
    """Of the generation alone: how fast a client reads does not count."""
    playback = state.playback
    return (playback.last_s - state.started_s) / playback.audio_s if playback.audio_s else 0.0
