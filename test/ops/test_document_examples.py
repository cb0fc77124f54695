"""The examples of docs/api.md and of the README, run as they stand against a real server."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.ops.conftest import unused_port
from test.ops.live_server import LiveServer, live_server
from test.ops.project import ROOT

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("jq") is None or shutil.which("curl") is None, reason="no curl, no jq"),
]
NAMES = ["anna", "owen", "clara", "anning"]  # some are the bundled voice's, which this server does not load
DOCUMENTS = ["docs/api.md", "docs/api.zh.md", "README.md", "README.zh.md"]


def _blocks(language: str) -> list[str]:
    texts = [(ROOT / name).read_text("utf-8") for name in DOCUMENTS]
    blocks = [block for text in texts for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]
    return [block for block in blocks if "localhost:8080" in block]


@pytest.fixture(scope="module")
def server(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    from light_tts.synthesizer import LightTTS

    voices = tmp_path_factory.mktemp("voices")
    recording = golden / "fixtures/prompt_24k.wav"
    tts = LightTTS(golden / "cosyvoice2", "cpu", voices_dir=voices)
    for name in NAMES:
        tts.register_voice(name, recording, "ok.")
    with live_server(golden / "cosyvoice2", unused_port(), "--voices_dir", str(voices)) as live:
        yield live


@pytest.fixture
def folder(golden: Path, tmp_path: Path) -> Path:
    shutil.copy(golden / "fixtures/prompt_24k.wav", tmp_path / "me.wav")
    return tmp_path


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)


@pytest.mark.parametrize("number", range(len(_blocks("bash"))))
def test_commands_bring_audio(server: LiveServer, folder: Path, number: int) -> None:
    block = _blocks("bash")[number].replace("http://localhost:8080", server.url)
    block = re.sub(r"\| aplay.*", "> out.pcm", block)
    commands = [part for part in re.split(r"(?<!\\)(?<!\|)\n", block) if part.strip() and part[0] != "#"]
    assert commands
    for command in commands:
        for old in folder.glob("out.*"):
            old.unlink()
        done = _run(["bash", "-o", "pipefail", "-c", command], folder)
        assert done.returncode == 0, done.stderr.decode()
        (out,) = folder.glob("out.*")
        audio = out.read_bytes()
        assert len(audio) > 24_000 // 5, audio[:500]
        assert audio.startswith(b"RIFF") == (out.suffix == ".wav")
        assert not audio.startswith(b'{"'), audio[:500]


@pytest.mark.parametrize("number", range(len(_blocks("python"))))
def test_programs_end_well(server: LiveServer, folder: Path, number: int) -> None:
    block = _blocks("python")[number].replace("localhost:8080", server.url.removeprefix("http://"))
    check = "\nif 'pcm' in dir():\n    assert len(pcm) > 24_000 // 5\n"
    done = _run([sys.executable, "-c", block + check], folder)
    assert done.returncode == 0, done.stderr.decode()
