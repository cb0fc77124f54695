"""What people and Prometheus see of the server."""

from light_tts.observe.log import log_stage, request_scope, set_up_logging
from light_tts.observe.metrics import Metrics, exposition, mark_dead, metrics

__all__ = ["Metrics", "exposition", "log_stage", "mark_dead", "metrics", "request_scope", "set_up_logging"]
