from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from light_tts.config import PRESETS as PRESET_NAMES
from light_tts.config import ServerConfig
from light_tts.errors import InvalidInput
from light_tts.flags import PRESETS, config_of, parse, read_file

TWO_WORKERS = """
  --model_dir ./pretrained_models/CosyVoice2-0.5B-latest --host 0.0.0.0 --port 8080 --encode_process_num 1
  --encode_paral_num 4 --decode_process_num 2 --decode_paral_num 2 --decode_max_batch_size 4 --gpt_paral_num 100
  --gpt_paral_step_num 200 --max_total_token_num 65536 --max_req_total_len 32768 --batch_max_tokens 8192
  --router_max_wait_tokens 8 --cache_capacity 200 --load_trt True --mode triton_flashdecoding --httpserver_workers 3
"""
THREE_WORKERS = """
  --model_dir ./m --host 0.0.0.0 --port 8080 --encode_process_num 1 --encode_paral_num 6 --decode_process_num 3
  --decode_paral_num 2 --decode_max_batch_size 3 --gpt_paral_num 150 --gpt_paral_step_num 300
  --max_total_token_num 98304 --max_req_total_len 32768 --batch_max_tokens 12288 --router_max_wait_tokens 6
  --cache_capacity 300 --load_trt True --mode triton_flashdecoding,triton_int8kv --httpserver_workers 4
  --log_stats_interval 10
"""
DEPLOYED = """model_dir: "/models/m"
decode_process_num: 2
httpserver_workers: 4
decode_max_batch_size: 3
gpt_paral_num: 150
load_trt: true
mode: ["triton_flashdecoding"]
log_level: "INFO"
"""


def test_the_guides_command_lines_are_understood() -> None:
    two, three = config_of(TWO_WORKERS.split()), config_of(THREE_WORKERS.split())
    assert two.model_dir == Path("pretrained_models/CosyVoice2-0.5B-latest")
    assert (two.batch_max_tokens, two.load_trt, two.mode) == (8192, True, ("triton_flashdecoding",))
    assert three.mode == ("triton_flashdecoding", "triton_int8kv")
    assert (three.router_max_wait_tokens, three.httpserver_workers) == (6, 4)


def test_without_flags_all_is_default() -> None:
    assert config_of([]) == ServerConfig()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("True", True),
        ("true", True),
        ("1", True),
        ("yes", True),
        ("False", False),
        ("0", False),
        ("no", False),
    ],
)
def test_a_boolean_means_what_it_says(text: str, expected: bool) -> None:
    assert config_of(["--load_trt", text]).load_trt is expected


@pytest.mark.parametrize(
    "arguments", ["--mode triton_flashdecoding ppl_int8kv", "--mode triton_flashdecoding,ppl_int8kv"]
)
def test_several_values_come_with_spaces_or_commas(arguments: str) -> None:
    assert config_of(arguments.split()).mode == ("triton_flashdecoding", "ppl_int8kv")


def test_dashes_are_underscores() -> None:
    assert config_of(["--decode-process-num", "2", "--decode-gpus=0,1"]).decode_gpus == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--decode_proces_num 3", "unknown flag --decode_proces_num, did you mean --decode_process_num?"),
        ("--decode_process 3", "unknown flag --decode_process, did you mean --decode_process_num?"),
        ("--zzz 3", r"unknown flag --zzz \(--help lists them\)"),
        ("--port http", "port is 'http', must be an integer"),
        ("--port 80.5", "port is '80.5', must be an integer"),
        ("--load_trt maybe", "load_trt is 'maybe', must be True or False"),
        ("--mode int4", "mode is 'int4', known are triton_flashdecoding, triton_int8kv, ppl_int8kv"),
        ("--preset fast", "preset is 'fast', known are throughput, latency, memory"),
        ("--port", "expected one argument"),
        ("--config /nowhere.yaml", "config file /nowhere.yaml: No such file or directory"),
    ],
)
def test_a_wrong_command_line_is_refused_with_the_reason(arguments: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        config_of(arguments.split())


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "production.yaml"
    file.write_text("preset: latency\ngpt_paral_num: 70\ndecode_process_num: 2\n", "utf-8")
    config = config_of(["--config", str(file), "--decode_process_num", "1"])
    assert (config.decode_process_num, config.gpt_paral_num, config.router_max_wait_tokens) == (1, 70, 4)


def test_the_file_of_the_deployment_script_is_understood(tmp_path: Path) -> None:
    file = tmp_path / "production.yaml"
    file.write_text(DEPLOYED, "utf-8")
    config = config_of(["--config", str(file)])
    assert config.model_dir == Path("/models/m")
    assert (config.decode_process_num, config.httpserver_workers, config.mode) == (
        2,
        4,
        ("triton_flashdecoding",),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decode_proces_num: 3", "unknown option decode_proces_num, did you mean decode_process_num?"),
        ("config: other.yaml", "unknown option config"),
        ("port: [1, 2]", "port is '1 2', must be an integer"),
        ("port: true", "config file .*production.yaml: port is 'True', must be an integer"),
        ("model_dir: {a: b}", "model_dir is a dict, must be a plain value"),
        ("- port", "holds a list, must be lines of `name: value`"),
        ("port: [", "is no YAML"),
        ("model_dir: !!python/object/apply:os.system [true]", "is no YAML"),
        ('model_dir: ""', "model_dir is empty"),
    ],
)
def test_a_wrong_file_is_refused_with_the_reason(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "production.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(InvalidInput, match=message):
        config_of(["--config", str(file)])


def test_an_empty_file_and_empty_values_say_nothing(tmp_path: Path) -> None:
    file = tmp_path / "production.yaml"
    file.write_text("# nothing yet\n", "utf-8")
    assert read_file(file) == {}
    file.write_text("voices_dir:\n", "utf-8")
    assert read_file(file) == {}


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_each_preset_is_a_valid_configuration(name: str) -> None:
    config = config_of(["--preset", name])
    assert {key: getattr(config, key) for key in PRESETS[name]} == PRESETS[name]


def test_the_memory_preset_halves_the_pool_and_its_numbers() -> None:
    config = config_of(["--preset", "memory"])
    assert (config.max_total_token_num, config.int8_kv) == (32768, True)


@pytest.mark.parametrize(
    "field",
    [field for field in fields(ServerConfig) if field.default not in (None, ())],
    ids=lambda f: str(f.name),
)
def test_what_a_field_holds_can_be_written_as_a_flag(field: object) -> None:
    name, default = field.name, field.default  # type: ignore[attr-defined]
    assert parse(name, str(default)) == default
    assert getattr(config_of([f"--{name}", str(default)]), name) == default


def test_help_names_every_flag_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        config_of(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for field in fields(ServerConfig):
        assert f"--{field.name} " in text
    assert "(default 127.0.0.1)" in text
    assert "--decode-process-num" not in text  # understood, but one spelling is enough to read
