"""The one shape of errors, `{"message", "error": {"message", "type", "param", "code"}}`, and who gives it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from fastapi import FastAPI
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from light_tts.errors import RETRY_AFTER_S, LightTTSError, status_of

logger = logging.getLogger(__name__)

_MAX_MESSAGE = 600
_OPENAI = "/v1/"
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed"}


class ErrorDetail(BaseModel):
    """param: the field that it is about, where it is about one; code: a stable name"""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """What every error is, for the description of the routes."""

    message: str
    error: ErrorDetail


def error_body(code: str, message: str, param: str | None) -> dict[str, object]:
    """What is sent as JSON. Readers of upstream's errors find `message` where they look for it."""
    if len(message) > _MAX_MESSAGE:
        message = message[:_MAX_MESSAGE] + "…"
    detail = {"message": message, "type": _type_of(code), "param": param, "code": code}
    return {"message": message, "error": detail}


def body_of(error: LightTTSError) -> dict[str, object]:
    return error_body(error.code, str(error), error.param)


def error_response(
    code: str,
    message: str,
    param: str | None = None,
    *,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    all_headers = dict(headers or {})
    if code in RETRY_AFTER_S:
        all_headers["Retry-After"] = str(RETRY_AFTER_S[code])
    content = json.dumps(error_body(code, message, param))  # ASCII: a message may quote half a character
    return Response(content, status or status_of(code), all_headers, "application/json")


def install_error_handlers(app: FastAPI) -> None:
    """FastAPI's own answers get the same shape."""
    app.add_exception_handler(LightTTSError, _light_tts_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _light_tts_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, LightTTSError)
    status = status_of(error.code)
    if status == 422 and request.url.path.startswith(_OPENAI):
        status = 400  # as OpenAI has it
    return error_response(error.code, str(error), error.param, status=status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "invalid_input")
    message = f"{request.method} {request.url.path[:200]}: {error.detail}"
    return error_response(code, message, status=error.status_code, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    return error_response("internal_error", "something went wrong here: the server's log tells what")


def _type_of(code: str) -> str:
    status = status_of(code)
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
