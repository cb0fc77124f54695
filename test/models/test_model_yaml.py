"""The model yaml is read as data: right values, exact complaints, and never any code."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from light_tts.errors import CorruptFile, InvalidModelConfig, LightTTSError, ModelNotFound, UnsafeFile
from light_tts.models.config import DiTConfig, UNetConfig
from light_tts.models.model_yaml import read_model_config
from light_tts.models.safe_yaml import MAX_DEPTH, MAX_FILE_BYTES
from test.support.random_model import full_size_manifest

Edit = Callable[[str, str], None]


@pytest.fixture
def config_dir(model_dir: Path, tmp_path: Path) -> Path:
    """A copy of a model directory's configuration, to be damaged."""
    return _copy_config(model_dir, tmp_path / "model")


@pytest.fixture
def v2_dir(golden: Path, tmp_path: Path) -> Path:
    return _copy_config(golden / "cosyvoice2", tmp_path / "model")


@pytest.fixture
def edit(v2_dir: Path) -> Edit:
    """Replace text in the yaml; fails if it is not there."""

    def replace(old: str, new: str) -> None:
        path = v2_dir / "cosyvoice2.yaml"
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    return replace


def _copy_config(source: Path, target: Path) -> Path:
    (target / "CosyVoice-BlankEN").mkdir(parents=True)
    for path in [*source.glob("*.yaml"), source / "CosyVoice-BlankEN/config.json"]:
        shutil.copyfile(path, target / path.relative_to(source))
    return target


def _yaml(folder: Path) -> Path:
    return next(folder.glob("*.yaml"))


def test_the_recorded_cosyvoice2_has_the_values_of_its_yaml(golden: Path) -> None:
    config = read_model_config(golden / "cosyvoice2")
    assert (config.version, config.sample_rate, config.chunk_size, config.spk_embed_dim) == (
        2,
        24_000,
        25,
        192,
    )
    assert (config.llm.speech_token_size, config.llm.mix_ratio) == (2187, (5, 15))
    assert (config.llm.qwen.vocab_size, config.llm.qwen.head_dim, config.llm.qwen.rope_theta) == (704, 8, 1e6)
    assert (config.llm.sampling.top_p, config.llm.sampling.top_k) == (0.8, 25)
    assert config.flow.encoder is not None
    assert (config.flow.encoder.chunk_size, config.flow.encoder.num_blocks) == (25, 2)
    assert isinstance(config.flow.estimator, UNetConfig)
    assert (config.flow.estimator.channels, config.flow.estimator.chunk_size) == (48, 50)
    assert config.hift.upsample_rates == (8, 5, 3)
    assert config.hift.resblock_dilation_sizes == ((1, 3, 5),) * 3
    assert config.mel.fmax == 8000.0


def test_the_recorded_cosyvoice3_has_the_values_of_its_yaml(golden: Path) -> None:
    config = read_model_config(golden / "cosyvoice3")
    assert config.version == config.llm.version == config.flow.version == config.hift.version == 3
    assert isinstance(config.flow.estimator, DiTConfig)
    assert (config.flow.estimator.depth, config.flow.estimator.dim_head) == (2, 12)
    assert config.flow.encoder is None
    assert config.flow.pre_lookahead_channels == 96
    assert config.mel.fmax is None


@pytest.mark.parametrize("version", [2, 3])
def test_the_full_yaml_with_all_training_parts_is_read(golden: Path, v2_dir: Path, version: int) -> None:
    manifest = full_size_manifest(golden, version)
    _yaml(v2_dir).unlink()
    (v2_dir / f"cosyvoice{version}.yaml").write_text(manifest.yaml_text, "utf-8")
    (v2_dir / "CosyVoice-BlankEN/config.json").write_text(json.dumps(manifest.qwen_config), "utf-8")
    config = read_model_config(v2_dir)
    assert (config.llm.qwen.num_hidden_layers, config.llm.speech_token_size) == (24, 6561)
    assert config.hift.base_channels == 512


def test_a_symbolic_link_to_a_model_directory_is_followed(model_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(model_dir.resolve(), target_is_directory=True)
    assert read_model_config(link) == read_model_config(model_dir)


# Unsafe files


@pytest.mark.parametrize(
    "line",
    [
        "evil: !!python/object/apply:os.system ['touch MARKER']",
        "evil: !!python/object/new:os.system ['touch MARKER']",
        "evil: !!python/name:os.system",
        "evil: !!python/module:os",
        "evil: !apply:os.system ['touch MARKER']",
        "evil: !apply:subprocess.check_call [['touch', 'MARKER']]",
        "evil: !new:subprocess.Popen {args: [touch, MARKER]}",
        "evil: !name:os.system",
        "evil: !module:os",
        "evil: !include:/etc/passwd",
        "evil: !applyref:os.system ['touch MARKER']",
        "evil: !apply:cosyvoice.x;os.system ['touch MARKER']",
        "evil: !apply:torch.load ['MARKER']",
        "evil: !<tag:yaml.org,2002:python/object/apply:os.system> ['touch MARKER']",
        "? !!python/object/apply:os.system ['touch MARKER']\n: x",
        "evil: {deeper: [1, {x: !apply:os.system [id]}]}",
    ],
)
def test_a_tag_that_would_run_code_is_refused_and_not_run(
    config_dir: Path, tmp_path: Path, line: str
) -> None:
    marker = tmp_path / "marker"
    path = _yaml(config_dir)
    number = path.read_text("utf-8").count("\n") + 1
    with path.open("a", encoding="utf-8") as file:
        file.write(line.replace("MARKER", str(marker)) + "\n")
    expected = InvalidModelConfig if line.startswith("?") else UnsafeFile
    with pytest.raises(expected, match=f"line {number}"):
        read_model_config(config_dir)
    assert not marker.exists()


def test_a_redefined_tag_prefix_does_not_hide_a_python_tag(config_dir: Path) -> None:
    path = _yaml(config_dir)
    text = path.read_text("utf-8")
    path.write_text(
        f"%TAG !e! tag:yaml.org,2002:python/\n---\n{text}\nevil: !e!object/apply:os.system [id]\n"
    )
    with pytest.raises(UnsafeFile, match=r"python/object/apply:os\.system"):
        read_model_config(config_dir)


def test_a_known_class_with_the_wrong_module_is_refused(edit: Edit, v2_dir: Path) -> None:
    edit("!new:cosyvoice.llm.llm.Qwen2LM", "!new:os.Qwen2LM")
    with pytest.raises(UnsafeFile, match=r"!new:os\.Qwen2LM"):
        read_model_config(v2_dir)


def test_aliases_that_multiply_are_refused(config_dir: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    with _yaml(config_dir).open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    with pytest.raises(UnsafeFile, match="expands to more than"):
        read_model_config(config_dir)


def test_an_alias_to_itself_is_refused(config_dir: Path) -> None:
    with _yaml(config_dir).open("a", encoding="utf-8") as file:
        file.write("a: &a [*a]\n")
    with pytest.raises(CorruptFile, match=r"alias \*a"):
        read_model_config(config_dir)


def test_nesting_is_limited(config_dir: Path) -> None:
    with _yaml(config_dir).open("a", encoding="utf-8") as file:
        file.write("a: " + "[" * 100_000 + "\n")
    with pytest.raises(UnsafeFile, match=f"deeper than {MAX_DEPTH}"):
        read_model_config(config_dir)


def test_a_simple_alias_is_understood(edit: Edit, v2_dir: Path) -> None:
    edit("    source_resblock_kernel_sizes: [7, 7, 11]", "    source_resblock_kernel_sizes: *kernels")
    edit("    resblock_kernel_sizes: [3, 7, 11]", "    resblock_kernel_sizes: &kernels [3, 7, 11]")
    assert read_model_config(v2_dir).hift.source_resblock_kernel_sizes == (3, 7, 11)


# Files that are no yaml


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", CorruptFile),
        (b"\x00\x01\x02\x80\xff" * 100, CorruptFile),
        (os.urandom(4096) + b"\xff", CorruptFile),
        (b"\x00" * 100, CorruptFile),
        (b"just words", InvalidModelConfig),
        (b"- a\n- b\n", InvalidModelConfig),
        (b"a: [1, 2\nb: }", CorruptFile),
        (b"a: 1\n---\nb: 2\n", CorruptFile),
        (b'a: "\\U99999999"\n', CorruptFile),
        (b"a: 1\na: 2\n", InvalidModelConfig),
        (b"<<: {a: 1}\n", InvalidModelConfig),
        (b"x" * (MAX_FILE_BYTES + 1), CorruptFile),
    ],
)
def test_a_file_that_is_no_model_yaml_is_named(
    config_dir: Path, content: bytes, error: type[Exception]
) -> None:
    path = _yaml(config_dir)
    path.write_bytes(content)
    with pytest.raises(error, match=path.name):
        read_model_config(config_dir)


@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"hidden_size": 1e999}']
)
def test_a_damaged_qwen_config_is_named(config_dir: Path, content: bytes) -> None:
    path = config_dir / "CosyVoice-BlankEN/config.json"
    path.write_bytes(content)
    with pytest.raises((CorruptFile, InvalidModelConfig), match=r"config\.json"):
        read_model_config(config_dir)


def test_random_damage_never_ends_in_an_unnamed_error(config_dir: Path) -> None:
    path, chance, refused = _yaml(config_dir), random.Random(0), 0
    pristine = path.read_bytes()
    for _ in range(150):
        damaged = bytearray(pristine)
        for _ in range(chance.choice([1, 3, 30])):
            damaged[chance.randrange(len(damaged))] = chance.choice(b"\n\t :-!<>[]{}&*'\"#%@,0a9\x00\xff")
        path.write_bytes(damaged)
        try:
            read_model_config(config_dir)
        except LightTTSError:
            refused += 1
    assert refused > 50


# Which model it is


def test_a_directory_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        read_model_config(tmp_path / "nowhere")


def test_a_directory_without_yaml_says_which_files_it_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"cosyvoice2\.yaml or cosyvoice3\.yaml"):
        read_model_config(tmp_path)


def test_cosyvoice_1_is_called_unsupported(v2_dir: Path) -> None:
    (v2_dir / "cosyvoice2.yaml").rename(v2_dir / "cosyvoice.yaml")
    with pytest.raises(InvalidModelConfig, match=r"CosyVoice 1 .*unsupported"):
        read_model_config(v2_dir)


def test_two_versions_in_one_directory_are_refused(v2_dir: Path) -> None:
    shutil.copyfile(v2_dir / "cosyvoice2.yaml", v2_dir / "cosyvoice3.yaml")
    with pytest.raises(InvalidModelConfig, match="both"):
        read_model_config(v2_dir)


def test_the_classes_must_belong_to_the_version_of_the_file_name(v2_dir: Path) -> None:
    (v2_dir / "cosyvoice2.yaml").rename(v2_dir / "cosyvoice3.yaml")
    with pytest.raises(
        InvalidModelConfig, match=r"llm is !new:cosyvoice.llm.llm.Qwen2LM, must be .*CosyVoice3LM"
    ):
        read_model_config(v2_dir)


def test_a_missing_qwen_config_is_named(v2_dir: Path) -> None:
    (v2_dir / "CosyVoice-BlankEN/config.json").unlink()
    with pytest.raises(ModelNotFound, match=r"CosyVoice-BlankEN/config\.json"):
        read_model_config(v2_dir)


# Every field


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sample_rate: 24000", "sample_rate: 22050", "sample_rate is 22050"),
        ("token_frame_rate: 25", "token_frame_rate: 50", "token_frame_rate is 50"),
        ("chunk_size: 25 #", "chunk_size: 0 #", "chunk_size is 0, must be an integer from 1 to"),
        (
            "speech_token_size: 2187",
            "speech_token_size: 2186",
            r"vocab_size is 2187, but llm.speech_token_size is 2186",
        ),
        ("speech_token_size: 2187", "speech_token_size: -5", "llm.speech_token_size is -5"),
        ("speech_token_size: 2187", "speech_token_size: many", "'many'"),
        ("speech_token_size: 2187", "speech_token_size: 2187.0", "2187.0"),
        ("speech_token_size: 2187", "speech_token_size: true", "True"),
        ("speech_token_size: 2187", "speech_token_size: '2187'", "'2187'"),
        ("speech_token_size: 2187", "speech_token_size: 99999999999999999999", "is 1e[+]20"),
        ("    speech_token_size: 2187\n", "", "llm.speech_token_size is missing"),
        ("llm_input_size: 32", "llm_input_size: 64", "llm.llm_input_size is 64, must be 32: hidden_size"),
        ("mix_ratio: [5, 15]", "mix_ratio: [5]", "mix_ratio has 1 values"),
        ("top_p: 0.8", "top_p: 1.5", "top_p is 1.5, must be a number from 1e-06 to 1"),
        ("top_p: 0.8", "top_p: .nan", "top_p is nan"),
        ("top_p: 0.8", "top_p: .inf", "top_p is inf"),
        (
            "!name:cosyvoice.utils.common.ras_sampling",
            "!name:cosyvoice.utils.common.nucleus",
            "llm.sampling is",
        ),
        ("spk_embed_dim: 192", "spk_embed_dim: 0", "spk_embed_dim is 0"),
        ("token_mel_ratio: 2", "token_mel_ratio: 4", "token_mel_ratio is 4"),
        ("vocab_size: 2187", "vocab_size: 2188", "vocab_size is 2188"),
        ("pre_lookahead_len: 3", "pre_lookahead_len: 4", "flow.pre_lookahead_len is 4"),
        ("attention_heads: 4", "attention_heads: 5", "flow.encoder.output_size is 48"),
        ("use_cnn_module: False", "use_cnn_module: True", "use_cnn_module is True"),
        ("input_layer: 'linear'", "input_layer: 'conv2d'", "input_layer is 'conv2d'"),
        ("        input_size: 48", "        input_size: 49", "flow.encoder.input_size is 49"),
        ("channels: [48]", "channels: [48, 48]", "channels has 2 levels"),
        ("channels: [48]", "channels: 48", "channels is 48, must be a list"),
        ("in_channels: 320", "in_channels: 240", "estimator.in_channels is 240"),
        ("<chunk_size> * <token_mel_ratio>", "<chunk_size> * 3", "static_chunk_size is 75"),
        ("solver: 'euler'", "solver: 'midpoint'", "solver is 'midpoint'"),
        ("upsample_rates: [8, 5, 3]", "upsample_rates: [8, 5]", "upsample_kernel_sizes has 3 values"),
        ("upsample_rates: [8, 5, 3]", "upsample_rates: [8, 5, 1]", "hop_size is 480, must be 160"),
        (
            "upsample_kernel_sizes: [16, 11, 7]",
            "upsample_kernel_sizes: [16, 11, 8]",
            "has 8, which does not fit",
        ),
        ("base_channels: 48", "base_channels: 44", "base_channels is 44"),
        ("n_fft: 16", "n_fft: 15", "istft_params.n_fft is 15"),
        ("nsf_voiced_threshold: 10", "nsf_voiced_threshold: ten", "nsf_voiced_threshold is 'ten'"),
        ("    resblock_kernel_sizes: [3, 7, 11]", "    resblock_kernel_sizes: [3, 7, 10]", "must be odd"),
        ("[[1, 3, 5], [1, 3, 5], [1, 3, 5]]", "[[1, 3, 5], [1, 3, 5], []]", "list of 0"),
        ("[[1, 3, 5], [1, 3, 5], [1, 3, 5]]", "[[1, 3, 5]]", "has 1 lists for 3"),
        ("hop_size: 480", "hop_size: 240", "feat_extractor.hop_size is 240"),
        ("num_mels: 80", "num_mels: 100", "num_mels is 100"),
        ("fmax: 8000", "fmax: 80000", "fmax is 80000"),
        ("center: False", "center: True", "center is True"),
        ("feat_extractor:", "other_extractor:", "feat_extractor is missing"),
        ("hift: !new", "flow2: !new", "hift is missing"),
    ],
)
def test_a_wrong_value_is_named_with_its_limit(
    edit: Edit, v2_dir: Path, old: str, new: str, message: str
) -> None:
    edit(old, new)
    with pytest.raises(InvalidModelConfig, match=message) as caught:
        read_model_config(v2_dir)
    assert "cosyvoice2.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"num_hidden_layers": 1000}, "num_hidden_layers is 1000"),
        ({"num_attention_heads": 3}, "hidden_size is 32"),
        ({"num_key_value_heads": 3}, "num_attention_heads is 4"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"head_dim": 16}, "head_dim is 16, must be 8"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling.rope_type is 'yarn'"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps is 'small'"),
        ({"rope_theta": -1}, "rope_theta is -1"),
    ],
)
def test_a_wrong_qwen_value_is_named(v2_dir: Path, changes: dict[str, object], message: str) -> None:
    path = v2_dir / "CosyVoice-BlankEN/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), "utf-8")
    with pytest.raises(InvalidModelConfig, match=message):
        read_model_config(v2_dir)


def test_rope_theta_is_found_where_newer_libraries_write_it(v2_dir: Path) -> None:
    path = v2_dir / "CosyVoice-BlankEN/config.json"
    values = json.loads(path.read_text())
    del values["rope_theta"], values["rope_scaling"]
    values["rope_parameters"] = {"rope_type": "default", "rope_theta": 5000.0}
    path.write_text(json.dumps(values), "utf-8")
    assert read_model_config(v2_dir).llm.qwen.rope_theta == 5000.0


# References


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("<chunk_size>", 25),
        ("<chunk_size> * <token_mel_ratio>", 50),
        ("(<chunk_size>+5)*2 - 10 // 3", 57),
        ("<flow.vocab_size> - 2100", 87),
        ("<flow[vocab_size]> - 2100", 87),
        ("-<chunk_size> + 30", 5),
        ("1e1 * 2 - 1 - 1", None),
        ("<chunk_size> / 2", None),
    ],
)
def test_references_and_their_arithmetic(
    edit: Edit, v2_dir: Path, expression: str, value: int | None
) -> None:
    edit("top_k: 25", f"top_k: !ref {expression}")
    if value is None:  # a fraction by its type
        with pytest.raises(InvalidModelConfig, match="must be an integer"):
            read_model_config(v2_dir)
    else:
        assert read_model_config(v2_dir).llm.sampling.top_k == value


@pytest.mark.parametrize(
    "expression",
    [
        "<nothing>",
        "<chunk_size.deeper>",
        "<chunk_size> ** 9999",
        "<chunk_size> / 0",
        "<chunk_size> // (1 - 1)",
        "<flow> * 2",
        "<allowed_special> * 2",
        "__import__('os').system('id')",
        "<chunk_size> + open('x')",
        "(" * 40 + "1" + ")" * 40,
        "1 " * 10,
        "",
        "()",
        "999999999999999 * 999999999999999",
        " + ".join(["1"] * 100),
    ],
)
def test_an_expression_beyond_arithmetic_is_refused(edit: Edit, v2_dir: Path, expression: str) -> None:
    edit("top_k: 25", f"top_k: !ref {expression}" if expression else "top_k: !ref")
    with pytest.raises(InvalidModelConfig, match="top_k"):
        read_model_config(v2_dir)


def test_a_reference_to_itself_is_refused(edit: Edit, v2_dir: Path) -> None:
    edit("chunk_size: 25 #", "chunk_size: !ref <chunk_size> #")
    with pytest.raises(InvalidModelConfig, match="refers to itself"):
        read_model_config(v2_dir)


def test_references_that_double_are_refused(edit: Edit, v2_dir: Path) -> None:
    doubling = "\n".join(f"d{n}: !ref <d{n + 1}> + <d{n + 1}>" for n in range(40))
    edit("top_k: 25", "top_k: !ref <d0>")
    edit("allowed_special: 'all'", f"{doubling}\nd40: 1")
    with pytest.raises(InvalidModelConfig, match="references"):
        read_model_config(v2_dir)
