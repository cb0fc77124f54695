"""Voices over HTTP, with a real encode process behind the worker."""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi.testclient import TestClient

from light_tts.cli import main
from light_tts.config import ServerConfig
from light_tts.encode.voices import VoiceStore
from light_tts.messages import Stage
from light_tts.server.api_http import create_app
from light_tts.server.voice_schemas import mime_type_of
from test.encode.test_voices import BAD_NAMES, a_voice, zero_shot_entry
from test.server.encode_server import encode_server
from test.server.fake_pipeline import client_of, fake_pipeline

PATH = "/v1/audio/voices"
LIMIT = 6


@pytest.fixture(scope="module")
def folder(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "cosyvoice3"
    shutil.copytree(golden / "cosyvoice3", folder)
    shutil.copy(golden / "fixtures" / "prompt_24k.wav", folder / "anna.wav")
    entries = [{"name": "anna", "wav": "anna.wav", "text": "ok.", "lang": "en"}]
    (folder / "prompts.json").write_text(json.dumps(entries), "utf-8")
    return folder


@pytest.fixture(scope="module")
def recording(golden: Path) -> bytes:
    return (golden / "fixtures" / "prompt_24k.wav").read_bytes()


@pytest.fixture(scope="module")
def voices_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "voices"


@pytest.fixture(scope="module")
def url(folder: Path, voices_dir: Path) -> Iterator[str]:
    options: dict[str, object] = {"max_voices": LIMIT, "max_voice_mb": 0.5}
    with encode_server(model_dir=folder, voices_dir=voices_dir, **options) as url:
        yield url


@pytest.fixture
def client(url: str, voices_dir: Path) -> Iterator[httpx.Client]:
    for name in VoiceStore(voices_dir).list():
        VoiceStore(voices_dir).delete(name)
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
        yield client


def register(client: httpx.Client, recording: bytes, **fields: str) -> httpx.Response:
    data = {"name": "mia", "consent": "yes-17", "ref_text": "ok.", **fields}
    return client.post(PATH, data=data, files={"audio_sample": ("me.wav", recording, "audio/wav")})


def error_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["param"]


def test_a_voice_lives_from_registration_to_deletion(
    client: httpx.Client, recording: bytes, voices_dir: Path
) -> None:
    answer = register(client, recording, speaker_description="calm", language="en")
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["success"] is True
    assert told["voice"]["name"] == told["voice"]["id"] == "mia"
    listed = client.get(PATH).json()
    assert [(voice["id"], voice["kind"]) for voice in listed["voices"]] == [
        ("mia", "registered"),
        ("anna", "built-in"),
    ]
    (uploaded,) = listed["uploaded_voices"]
    assert {key: uploaded[key] for key in ("name", "consent", "mime_type", "ref_text")} == {
        "name": "mia",
        "consent": "yes-17",
        "mime_type": "audio/wav",
        "ref_text": "ok.",
    }
    assert uploaded["speaker_description"] == "calm"
    assert uploaded["file_size"] == (voices_dir / "mia.safetensors").stat().st_size
    assert isinstance(uploaded["created_at"], int)
    assert client.get(PATH, params={"legacy": "true"}).json()["voices"] == ["mia", "anna"]
    assert client.get(f"{PATH}/mia").json()["description"] == "calm"
    renamed = client.patch(f"{PATH}/mia", json={"name": "mia-2"})
    assert renamed.json()["voice"]["name"] == "mia-2"
    assert client.get(f"{PATH}/mia").status_code == 404
    assert client.delete(f"{PATH}/mia-2").json() == {"success": True, "message": "voice 'mia-2' is deleted"}
    gone = client.delete(f"{PATH}/mia-2")
    assert error_of(gone) == (404, "voice_not_found", "name")
    assert gone.json()["success"] is False
    assert client.get(f"{PATH}/anna").json()["kind"] == "built-in"


def test_what_is_stored_is_what_the_encoder_makes_of_the_recording(
    client: httpx.Client, recording: bytes, voices_dir: Path, folder: Path
) -> None:
    from light_tts.encode.audio import load_audio
    from light_tts.encode.prompt_encoder import PromptEncoder
    from light_tts.models.model_yaml import read_model_config

    assert register(client, recording).status_code == 200
    stored = VoiceStore(voices_dir).get("mia")
    fresh = PromptEncoder(folder, read_model_config(folder)).encode(load_audio(recording))
    assert torch.equal(stored.features.speech_token, fresh.speech_token)
    assert torch.equal(stored.features.prompt_mel, fresh.prompt_mel)
    assert torch.equal(stored.features.speaker_embedding, fresh.speaker_embedding)
    assert stored.info.owner == ""
    assert stored.info.encoder


def test_other_names_of_the_fields_and_base64_are_taken(client: httpx.Client, recording: bytes) -> None:
    data = "data:audio/wav;base64," + base64.b64encode(recording).decode()
    fields = {"audio": data, "name": "json", "consent": True, "transcript": "ok.", "description": "d", "x": 1}
    assert client.post(PATH, json=fields).status_code == 200
    told = client.get(f"{PATH}/json").json()
    assert (told["ref_text"], told["speaker_description"], told["consent"]) == ("ok.", "d", "true")


def test_a_name_is_taken_once_unless_it_is_said(client: httpx.Client, recording: bytes) -> None:
    assert register(client, recording).status_code == 200
    assert error_of(register(client, recording)) == (409, "voice_exists", "name")
    assert register(client, recording, overwrite="true", ref_text="hello.").status_code == 200
    assert client.get(f"{PATH}/mia").json()["ref_text"] == "hello."
    assert error_of(register(client, recording, name="anna", overwrite="true"))[:2] == (409, "voice_exists")
    assert error_of(client.patch(f"{PATH}/mia", json={"name": "anna"}))[:2] == (409, "voice_exists")
    assert error_of(client.delete(f"{PATH}/anna"))[:2] == (400, "invalid_input")


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name])
def test_a_name_that_could_be_a_path_is_refused(client: httpx.Client, recording: bytes, name: str) -> None:
    assert error_of(register(client, recording, name=name)) == (400, "invalid_input", "name")
    assert register(client, recording).status_code == 200
    assert error_of(client.patch(f"{PATH}/mia", json={"name": name}))[0] == 400
    quoted = base64.b16encode(name.encode()).decode()
    encoded = "".join(f"%{quoted[at : at + 2]}" for at in range(0, len(quoted), 2))
    for method in ("GET", "DELETE"):
        assert client.request(method, f"{PATH}/{encoded}").status_code in (404, 405)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"consent": ""}, (400, "consent_required", "consent")),
        ({"consent": "false"}, (400, "consent_required", "consent")),
        ({"name": ""}, (400, "validation_error", "name")),
        ({"ref_text": "x" * 2001}, (413, "text_too_long", "ref_text")),
        ({"speaker_description": "x" * 1001}, (413, "text_too_long", "speaker_description")),
        ({"language": "x" * 36}, (400, "validation_error", "language")),
        ({"overwrite": "perhaps"}, (400, "validation_error", "overwrite")),
    ],
)
def test_a_bad_field_is_named(
    client: httpx.Client, recording: bytes, fields: dict[str, str], expected: tuple[int, str, str]
) -> None:
    assert error_of(register(client, recording, **fields)) == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", (400, "invalid_audio", "audio_sample")),
        (b"RIFF no audio", (400, "invalid_audio", "audio_sample")),
        (bytes(600_000), (413, "body_too_large", "audio_sample")),
        (bytes(2_000_000), (413, "body_too_large", None)),
    ],
)
def test_a_bad_recording_is_refused(
    client: httpx.Client, sent: bytes, expected: tuple[int, str, str | None], voices_dir: Path
) -> None:
    if not sent:
        answer = client.post(PATH, json={"name": "mia", "consent": "y", "audio_sample": "===="})
        assert answer.status_code in (400, 422)
        return
    assert error_of(register(client, sent)) == expected
    assert VoiceStore(voices_dir).list() == []


def test_the_number_of_voices_is_limited(client: httpx.Client, recording: bytes) -> None:
    for number in range(LIMIT):
        assert register(client, recording, name=f"v{number}").status_code == 200
    assert error_of(register(client, recording, name="more")) == (409, "too_many_voices", None)
    assert register(client, recording, name="v0", overwrite="1").status_code == 200


def test_voices_are_mixed(client: httpx.Client, recording: bytes, voices_dir: Path) -> None:
    assert register(client, recording).status_code == 200
    VoiceStore(voices_dir).save(a_voice("other"))
    body: dict[str, Any] = {"name": "mix", "voices": {"mia": 3, "other": 1}}
    answer = client.post(f"{PATH}/blend", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["voice"]["source"] == "blend: mia 0.75, other 0.25"
    assert len(VoiceStore(voices_dir).get("mix").features.speech_token) == 0
    body |= {"prompt_voice": "mia", "overwrite": True}
    assert client.post(f"{PATH}/blend", json=body).json()["voice"]["ref_text"] == "ok."
    assert len(VoiceStore(voices_dir).get("mix").features.speech_token) > 0
    for change, expected in (
        ({"voices": {"mia": 1}}, (400, "invalid_input", "voices")),
        ({"voices": {"mia": 1, "nobody": 1}}, (404, "voice_not_found", "voices")),
        ({"voices": {"mia": 1, "other": -1}}, (400, "invalid_input", "voices")),
        ({"prompt_voice": "anna"}, (400, "invalid_input", "voices")),
        ({"voices": []}, (400, "validation_error", "voices")),
    ):
        assert error_of(client.post(f"{PATH}/blend", json=body | change)) == expected


def spk2info(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def test_cosyvoices_speakers_are_imported(client: httpx.Client, voices_dir: Path) -> None:
    archive = spk2info({"cloned": zero_shot_entry(), "中文女": {"embedding": torch.randn(1, 192)}})
    files, consent = {"file": archive}, {"consent": "yes"}
    refused = client.post(f"{PATH}/import", files=files, data=consent)
    assert error_of(refused)[:2] == (400, "invalid_input")
    assert "'中文女' cannot be names" in refused.json()["message"]
    assert VoiceStore(voices_dir).list() == []
    labels = {"labels": "cloned,中文女=woman", **consent}
    answer = client.post(f"{PATH}/import", files=files, data=labels)
    assert [voice["name"] for voice in answer.json()["voices"]] == ["cloned", "woman"]
    assert VoiceStore(voices_dir).list() == ["cloned", "woman"]
    assert error_of(client.post(f"{PATH}/import", files=files, data=labels))[:2] == (409, "voice_exists")
    missing = client.post(f"{PATH}/import", files=files, data={"labels": "nobody", **consent})
    assert error_of(missing)[:2] == (400, "invalid_input")
    assert error_of(client.post(f"{PATH}/import", files=files))[1] == "consent_required"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('it was run')",))


@pytest.mark.parametrize(
    "archive", [spk2info({"x": _Evil()}), pickle.dumps(_Evil()), b"PK\x03\x04", b"x" * 99]
)
def test_an_archive_that_is_none_is_refused_and_nothing_of_it_is_run(
    client: httpx.Client, archive: bytes, voices_dir: Path
) -> None:
    answer = client.post(f"{PATH}/import", files={"file": archive}, data={"consent": "yes"})
    assert error_of(answer)[:2] == (400, "invalid_body")
    assert "/tmp" not in answer.text
    assert VoiceStore(voices_dir).list() == []


def test_the_command_line_does_the_same_here_and_through_the_server(
    client: httpx.Client,
    url: str,
    folder: Path,
    voices_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wav, archive = str(folder / "anna.wav"), tmp_path / "spk2info.pt"
    archive.write_bytes(spk2info({"中文女": {"embedding": torch.randn(1, 192)}}))
    told = []
    for way in (["--server", url], ["--model_dir", str(folder), "--voices_dir", str(voices_dir)]):
        for arguments in (
            ["add", wav, "--name", "mia", "--text", "ok.", "--consent", "yes", "--description", "calm"],
            ["rename", "mia", "zoe"],
            ["import", str(archive), "--label", "中文女=woman", "--consent"],
            ["blend", "mix", "zoe=2", "woman=1", "--prompt-voice", "zoe"],
            ["list"],
            ["remove", "mix"],
            ["remove", "woman"],
        ):
            assert main(["voices", *arguments, *way]) == 0, capsys.readouterr().err
        assert main(["voices", "show", "zoe", *way]) == 0
        for arguments in (
            ["show", "mia"],
            ["remove", "../x"],
            ["blend", "m", "zoe=x"],
            ["rename", "zoe", "anna"],
        ):
            assert main(["voices", *arguments, *way]) == 2
        for arguments in (["add", wav, "--name", "no"], ["add", wav, "--name", "zoe", "--consent"]):
            assert main(["voices", *arguments, *way]) == 2
        assert client.get(f"{PATH}/zoe").json()["ref_text"] == "ok."
        assert client.delete(f"{PATH}/zoe").status_code == 200
        told.append(capsys.readouterr())
    through, here = told
    codes = [[line.split(": ")[1] for line in one.err.splitlines()] for one in told]
    assert codes[0] == codes[1]
    assert "consent_required" in here.err
    same = [line for line in here.out.splitlines() if not line.startswith(("encoder", "created_at"))]
    assert [line for line in through.out.splitlines() if not line.startswith("created_at")] == same


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], unused_port: int) -> None:
    assert main(["voices", "--server", f"http://127.0.0.1:{unused_port}"]) == 1
    assert "unavailable" in capsys.readouterr().err
    assert main(["voices", "--server", "localhost"]) == 2
    assert main(["voices", "--server", "http://x", "--voices_dir", "."]) == 2


@pytest.fixture
def unused_port() -> int:
    from test.server.running_server import free_port

    return free_port()


def test_without_a_folder_nothing_is_registered(recording: bytes) -> None:
    with fake_pipeline() as pipeline, client_of(pipeline) as client:
        assert client.get(PATH).json() == {"object": "list", "voices": [], "uploaded_voices": []}
        answer = client.post(PATH, data={"name": "a", "consent": "y"}, files={"audio_sample": recording})
        assert (answer.status_code, "voices_dir" in answer.text) == (400, True)


def test_a_lost_encode_process_is_told_at_once(recording: bytes, tmp_path: Path) -> None:
    with fake_pipeline(voices_dir=tmp_path) as pipeline, client_of(pipeline) as client:
        pipeline.change_state(not_ready=((Stage.ENCODE, 0),))
        answer = client.post(PATH, data={"name": "a", "consent": "y"}, files={"audio_sample": recording})
        assert answer.status_code == 503


def test_listing_and_deleting_need_no_encode_process(tmp_path: Path) -> None:
    VoiceStore(tmp_path).save(a_voice())
    app = create_app(ServerConfig(voices_dir=tmp_path), tmp_path)
    client = TestClient(app)
    assert client.get(PATH).json()["voices"][0]["name"] == "alice"
    assert client.delete(f"{PATH}/alice").status_code == 200


def test_the_kind_of_a_recording_is_seen_by_its_content() -> None:
    assert mime_type_of(b"RIFF\0\0\0\0WAVEfmt ") == "audio/wav"
    assert mime_type_of(b"\0\0\0\x20ftypM4A ") == "audio/mp4"
    assert mime_type_of(b"") == ""
