from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from light_tts.config import ChildSpec, ServerConfig
from light_tts.errors import InvalidInput
from light_tts.messages import Stage


def test_defaults_are_those_of_the_deployment_guide() -> None:
    config = ServerConfig()
    assert (config.decode_process_num, config.decode_max_batch_size, config.decode_paral_num) == (1, 1, 1)
    assert (config.gpt_paral_num, config.batch_max_tokens, config.router_max_wait_tokens) == (50, None, 8)
    assert (config.host, config.port, config.load_trt) == ("127.0.0.1", 8080, True)


def test_json_brings_back_an_equal_configuration(tmp_path: Path) -> None:
    config = ServerConfig(
        model_dir=Path("/models/m"), mode=("ppl_int8kv",), decode_gpus=(1, 0), num_gpus=2, max_prompt_s=12.5
    )
    assert ServerConfig.from_json(config.to_json()) == config
    (tmp_path / "config.json").write_text(config.to_json(), "utf-8")
    assert ServerConfig.read(tmp_path) == config


def test_json_of_the_wrong_types_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="port"):
        ServerConfig.from_json('{"port": "8080"}')


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 0}, r"port is 0, allowed is \[1, 65535\]"),
        ({"port": 65536}, r"port is 65536, allowed"),
        ({"decode_process_num": 0}, r"decode_process_num is 0, allowed is \[1, 64\]"),
        ({"gpu_memory_fraction": 0.0}, r"gpu_memory_fraction is 0.0, allowed is \(0, 1\]"),
        ({"gpu_memory_fraction": float("nan")}, "gpu_memory_fraction is nan"),
        ({"mode": ("triton_flashdecoding", "int4kv")}, "mode is 'int4kv', known are triton_flashdecoding, "),
        ({"dtype": "float8"}, "dtype is 'float8', known are auto, "),
        ({"max_total_token_num": 1024}, "max_req_total_len is 32768, more than the KV pool of 1024 holds"),
        ({"num_gpus": 2, "llm_gpu": 2}, "llm_gpu names GPU 2, there are 2, counted from 0"),
        ({"num_gpus": 2, "decode_gpus": (0, 3)}, "decode_gpus names GPU 3"),
        ({"max_prompt_s": 31.0}, "max_prompt_s is 31.0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_flag_value_and_limit(
    options: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        ServerConfig(**options)  # type: ignore[arg-type]


def test_prefill_may_be_cut_smaller_than_the_longest_request() -> None:
    assert ServerConfig(batch_max_tokens=8192, max_req_total_len=32768).batch_max_tokens == 8192


@pytest.mark.parametrize(
    ("num_gpus", "num_decode", "expected"),
    [
        (0, 2, ["cpu", "cpu", "cpu"]),
        (1, 1, ["cuda:0", "cuda:0"]),
        (2, 2, ["cuda:0", "cuda:0", "cuda:1"]),
        (3, 2, ["cuda:0", "cuda:1", "cuda:2"]),  # the guide's picture
        (3, 3, ["cuda:0", "cuda:0", "cuda:1", "cuda:2"]),  # the guide's function
        (2, 3, ["cuda:0", "cuda:0", "cuda:1", "cuda:0"]),
        (8, 3, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
    ],
)
def test_placement_gives_the_llm_a_gpu_for_itself_where_there_are_enough(
    num_gpus: int, num_decode: int, expected: list[str]
) -> None:
    children = ServerConfig(num_gpus=num_gpus, decode_process_num=num_decode).children()
    assert children[0] == ChildSpec(Stage.ENCODE, 0, "cpu")
    assert [child.device for child in children[1:]] == expected


def test_placement_can_be_given() -> None:
    config = ServerConfig(num_gpus=4, decode_process_num=3, decode_gpus=(3, 2), llm_gpu=1)
    assert [child.device for child in config.children()] == ["cpu", "cuda:1", "cuda:3", "cuda:2", "cuda:3"]
    assert config.device_of(Stage.DECODE, 0, num_gpus=0) == "cpu"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [((), False), (("triton_flashdecoding",), False), (("triton_int8kv",), True), (("ppl_int8kv",), True)],
)
def test_both_names_of_the_8_bit_cache_mean_it(mode: tuple[str, ...], expected: bool) -> None:
    assert ServerConfig(mode=mode).int8_kv is expected


def test_the_limit_at_the_door_follows_the_language_model() -> None:
    assert ServerConfig(gpt_paral_num=100).pending_limit == 400
    assert ServerConfig(gpt_paral_num=100, max_pending=7).pending_limit == 7


def test_processes_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)))
    assert ServerConfig(decode_process_num=3).threads_per_process == 4
    assert ServerConfig(decode_process_num=40).threads_per_process == 1
    assert ServerConfig(cpu_threads=5).threads_per_process == 5
