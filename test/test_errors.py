"""Codes are part of the public interface: each is unique where it can be, and has a status."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from light_tts import errors
from light_tts.errors import RETRY_AFTER_S, STATUS, LightTTSError, StageError, status_of


def _kinds(base: type[LightTTSError] = LightTTSError) -> Iterator[type[LightTTSError]]:
    for kind in base.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from _kinds(kind)


def test_every_error_has_a_code_of_its_own() -> None:
    # model_not_found: the server's own model is missing, or a request names one that is not served
    codes = [kind.code for kind in _kinds() if kind not in (StageError, errors.UnknownModel)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", [*_kinds(errors.InvalidInput)], ids=lambda kind: kind.__name__)
def test_what_a_client_can_get_wrong_is_its_fault(kind: type[LightTTSError]) -> None:
    assert 400 <= status_of(kind.code) < 500


def test_unknown_codes_are_our_fault() -> None:
    assert status_of("internal_error") == 500
    assert status_of("a code of the future") == 500


def test_only_what_may_work_later_says_when() -> None:
    assert {STATUS[code] for code in RETRY_AFTER_S} == {429, 503}


def test_a_stages_answer_keeps_its_code() -> None:
    error = StageError("invalid_audio", "it is silent")
    assert (error.code, str(error), error.param) == ("invalid_audio", "it is silent", None)
    assert LightTTSError.code == "internal_error"
