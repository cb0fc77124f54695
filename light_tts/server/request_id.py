"""What a client knows its request by: its own X-Request-Id where that is sensible, else one of ours."""

from __future__ import annotations

import re
import secrets

from starlette.datastructures import Headers
from starlette.types import Scope

HEADER = "X-Request-Id"
_SENSIBLE = re.compile(r"[A-Za-z0-9._\-]{1,64}")  # it stands in logs and in a header of the answer
_KEY = "light_tts.request_id"


def assign_request_id(scope: Scope) -> str:
    """Decide it, once per request."""
    wanted = Headers(scope=scope).get(HEADER, "")
    chosen = wanted if _SENSIBLE.fullmatch(wanted) else secrets.token_hex(8)
    scope[_KEY] = chosen
    return chosen


def request_id_of(scope: Scope) -> str:
    """What `assign_request_id` decided."""
    return str(scope[_KEY])
