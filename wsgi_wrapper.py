"""What run.sh has Gunicorn serve: the pipeline is started at import, once, and ends with Gunicorn.

Options: config/production.yaml, and flags in the environment variable LIGHT_TTS_ARGS; see light_tts/server/wsgi.py.
"""

from light_tts.server.wsgi import start_pipeline

start_pipeline()

from light_tts.server.api_http import app  # noqa: E402  # reads what start_pipeline has put into the environment

__all__ = ["app"]
