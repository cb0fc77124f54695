from __future__ import annotations

import shutil
import socket
from pathlib import Path

import pytest

from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput, LightTTSError
from light_tts.server import startup_checks
from light_tts.server.placement import GpuMemory
from light_tts.server.startup_checks import (
    NotEnoughMemory,
    PortTaken,
    check_memory,
    check_model_dir,
    check_port,
    check_voices_dir,
)

GB = 1_000_000_000


@pytest.fixture
def copied(golden: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(golden / "cosyvoice2", folder)
    return folder


def test_a_port_that_is_taken_is_told() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            PortTaken, match=rf"port {port} of 127.0.0.1 is taken by another process \(--port\)"
        ):
            check_port("127.0.0.1", port)
        with pytest.raises(PortTaken):
            check_port("0.0.0.0", port)
    check_port("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "message"),
    [("192.0.2.1", "cannot listen on 192.0.2.1:20199"), ("no.such.host.invalid", "is no address")],
)
def test_an_address_that_is_not_ours_is_told(host: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        check_port(host, 20199)


def test_a_whole_model_directory_passes(model_dir: Path) -> None:
    check_model_dir(model_dir)


@pytest.mark.parametrize(
    "name",
    [
        "cosyvoice2.yaml",
        "llm.pt",
        "flow.pt",
        "hift.pt",
        "campplus.onnx",
        "speech_tokenizer_v2.onnx",
        "CosyVoice-BlankEN/config.json",
    ],
)
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_file_that_is_missing_or_empty_is_named(copied: Path, name: str, damage: str) -> None:
    (copied / name).unlink()
    if damage == "empty":
        (copied / name).touch()
    with pytest.raises(LightTTSError) as caught:
        check_model_dir(copied)
    assert Path(name).name in str(caught.value)
    assert caught.value.code in ("model_not_found", "corrupt_file", "invalid_model_config")


def test_truncated_weights_are_told(copied: Path) -> None:
    weights = (copied / "flow.pt").read_bytes()
    (copied / "flow.pt").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(LightTTSError, match=r"flow\.pt is truncated"):
        check_model_dir(copied)


def test_a_directory_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(LightTTSError, match="does not exist"):
        check_model_dir(tmp_path / "none")


def test_a_folder_of_voices_that_is_none_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_voices_dir(None)
    check_voices_dir(tmp_path)
    assert not caplog.messages
    check_voices_dir(tmp_path / "voices")
    assert caplog.messages == [f"voices_dir {tmp_path}/voices does not exist: there are no registered voices"]
    (tmp_path / "voices").touch()
    with pytest.raises(InvalidInput, match=r"voices is no folder \(--voices_dir\)"):
        check_voices_dir(tmp_path / "voices")


def test_too_little_memory_is_told_with_what_to_change(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_checks, "_available_bytes", lambda: GB)
    model_dir, config = golden / "cosyvoice2", ServerConfig(num_gpus=0, decode_process_num=8)
    with pytest.raises(NotEnoughMemory, match=r"cpu needs about .* GB are free \(--decode_process_num, "):
        check_memory(config, model_dir)
    monkeypatch.setattr(startup_checks, "_available_bytes", lambda: 100 * GB)
    check_memory(config, model_dir)


def test_the_kv_pool_counts_and_8_bit_numbers_take_a_quarter(
    golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny model takes 2 * layers * heads * size * 4 bytes per token; the pool alone is larger than the limit."""
    model_dir = golden / "cosyvoice2"
    big = 40_000_000
    per_token = startup_checks._kv_pool_bytes(ServerConfig(max_total_token_num=big), model_dir) / big
    limit = round(1.05 * GB + per_token * big / 2)
    monkeypatch.setattr(startup_checks, "_available_bytes", lambda: limit)
    check_memory(ServerConfig(num_gpus=0, max_total_token_num=big, mode=("ppl_int8kv",)), model_dir)
    with pytest.raises(NotEnoughMemory):
        check_memory(ServerConfig(num_gpus=0, max_total_token_num=big), model_dir)


def test_a_gpu_that_others_fill_is_told(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_checks, "_available_bytes", lambda: 100 * GB)
    monkeypatch.setattr(startup_checks, "gpu_memory", lambda _: [GpuMemory(0, 80 * GB, 80 * GB)])
    with pytest.raises(NotEnoughMemory, match="cuda:0 needs about"):
        check_memory(ServerConfig(num_gpus=1), golden / "cosyvoice2")
