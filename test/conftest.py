"""Shared fixtures: the recorded reference models, and deterministic single-threaded arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session", autouse=True)
def _no_voices_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers that a test starts find no voices that the person who runs the tests has registered."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _single_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Directory of the recorded reference: model directories and `fixtures/`."""
    return GOLDEN


@pytest.fixture(scope="session", params=["cosyvoice2", "cosyvoice3"])
def model_dir(request: pytest.FixtureRequest) -> Path:
    """Each tiny model directory in the released layout."""
    return GOLDEN / str(request.param)
