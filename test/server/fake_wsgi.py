"""As wsgi_wrapper.py, with fake processes and a fake application."""

from light_tts.server.wsgi import start_pipeline

start_pipeline("test.server.fake_stage")

from test.server.fake_app import app  # noqa: E402

__all__ = ["app"]
