"""What people and Prometheus see of the server."""

from light_tts.observe.log import log_stage, request_scope, set_up_logging
from light_tts.observe.metrics import Metrics, metrics
from light_tts.observe.multiprocess import exposition, reap

__all__ = ["Metrics", "exposition", "log_stage", "metrics", "reap", "request_scope", "set_up_logging"]
