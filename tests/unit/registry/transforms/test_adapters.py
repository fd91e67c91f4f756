from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.registry.transforms.conftest import TARGETS, write_adapter, write_config, write_safetensors
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.weights.adapters import read_adapter

Q_PROJ, DOWN_PROJ = TARGETS
PREFIX = f"base_model.model.{Q_PROJ}"


def refused(directory: Path, **more: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        read_adapter(directory, **more)
    return caught.value


def test_an_adapter_says_what_it_updates(adapter: Path) -> None:
    read = read_adapter(adapter)
    assert set(read.updates) == {f"{Q_PROJ}.weight", f"{DOWN_PROJ}.weight"}
    assert read.targets == ("down_proj", "q_proj")
    update = read.updates[f"{DOWN_PROJ}.weight"]
    assert (update.a.shape, update.b.shape, update.scale) == ((4, 12), (8, 4), 2.0)


@pytest.mark.parametrize(
    ("config", "q_scale", "down_scale"),
    [
        ({"lora_alpha": 6}, 1.5, 1.5),
        ({"use_rslora": True}, 8 / math.sqrt(4), 8 / math.sqrt(4)),
        ({"rank_pattern": {"q_proj": 2}, "ranks": {Q_PROJ: 2}}, 4.0, 2.0),
        ({"rank_pattern": {Q_PROJ: 2}, "ranks": {Q_PROJ: 2}}, 4.0, 2.0),
        ({"rank_pattern": {".*self_attn.*": 2}, "ranks": {Q_PROJ: 2}}, 4.0, 2.0),
        ({"alpha_pattern": {"down_proj": 16}}, 2.0, 4.0),
        ({"alpha_pattern": {"roj": 16}}, 2.0, 2.0),  # a pattern matches whole parts of the name, as in PEFT
        (
            {"rank_pattern": {"q_proj": 2}, "ranks": {Q_PROJ: 2}, "alpha_pattern": {"q_proj": 4}, "use_rslora": True},
            4 / math.sqrt(2),
            4.0,
        ),
    ],
)
def test_scales_follow_rank_and_alpha(
    tmp_path: Path, config: dict[str, Any], q_scale: float, down_scale: float
) -> None:
    updates = read_adapter(write_adapter(tmp_path / "a", **config)).updates
    assert updates[f"{Q_PROJ}.weight"].scale == pytest.approx(q_scale)
    assert updates[f"{DOWN_PROJ}.weight"].scale == pytest.approx(down_scale)


@pytest.mark.parametrize(
    "config",
    [
        {"use_dora": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"modules_to_save": ["embed_tokens"]},
        {"layer_replication": [[0, 1]]},
        {"trainable_token_indices": [1]},
        {"use_qalora": True},
        {"alora_invocation_tokens": [1]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"fan_in_fan_out": True},
        {"peft_type": "IA3"},
        {"use_bdlora": True},
        {"kasa_config": {"k": 1}},
        {"target_parameters": ["mlp.experts.gate_up_proj"]},
    ],
    ids=str,
)
def test_what_engines_do_not_serve_is_refused_by_name(tmp_path: Path, config: dict[str, Any]) -> None:
    error = refused(write_adapter(tmp_path / "a", **config))
    assert error.reason == "NOT_SERVABLE"
    assert next(iter(config)) in str(error)


@pytest.mark.parametrize("init", [True, False, "gaussian", None])
def test_harmless_configurations_pass(tmp_path: Path, init: Any) -> None:
    read_adapter(write_adapter(tmp_path / "a", init_lora_weights=init, bias="none", use_dora=False, modules_to_save=[]))


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {f"{PREFIX}.lora_A.weight": (4, 8)},
        {f"{PREFIX}.lora_B.weight": (8, 4)},
        {f"{PREFIX}.lora_A.weight": (4, 8), f"{PREFIX}.lora_B.weight": (8, 3)},
        {f"{PREFIX}.lora_A.weight": (3, 8), f"{PREFIX}.lora_B.weight": (8, 3)},
        {f"{PREFIX}.lora_A.weight": (4,), f"{PREFIX}.lora_B.weight": (8, 4)},
        {f"{PREFIX}.lora_A.weight": (4, 8), f"{PREFIX}.lora_B.weight": (8,)},
        {f"{PREFIX}.lora_A.weight": (), f"{PREFIX}.lora_B.weight": ()},
        {f"{PREFIX}.lora_A.weight": (4, 8, 1, 1), f"{PREFIX}.lora_B.weight": (8, 4, 1, 1)},
        {f"{PREFIX}.lora_A.weight": (0, 8), f"{PREFIX}.lora_B.weight": (8, 0)},
        {f"{PREFIX}.lora_A.weight": (4, 8), f"{PREFIX}.lora_B.weight": (8, 4), "base_model.model.x.weight": (8,)},
        {f"{PREFIX}.lora_A.default.weight": (4, 8), f"{PREFIX}.lora_B.default.weight": (8, 4)},
        {f"{Q_PROJ}.lora_A.weight": (4, 8), f"{Q_PROJ}.lora_B.weight": (8, 4)},
        {f"{PREFIX}.lora_embedding_A": (4, 8), f"{PREFIX}.lora_embedding_B": (8, 4)},
        {f"{PREFIX}.lora_magnitude_vector": (8,)},
    ],
    ids=lambda tensors: ",".join(f"{name[-22:]}{list(shape)}" for name, shape in tensors.items()) or "nothing",
)
def test_pairs_that_do_not_fit_are_refused(tmp_path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    write_config(tmp_path)
    write_safetensors(
        tmp_path / "adapter_model.safetensors", {name: ("F32", np.ones(shape)) for name, shape in tensors.items()}
    )
    assert refused(tmp_path).reason == "ADAPTER_INVALID"


def test_integers_are_no_weights(tmp_path: Path) -> None:
    write_config(tmp_path)
    from safetensors.numpy import save_file

    tensors = {
        f"{PREFIX}.lora_A.weight": np.ones((4, 8), np.int16),
        f"{PREFIX}.lora_B.weight": np.ones((8, 4), np.int16),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    assert refused(tmp_path).reason == "ADAPTER_INVALID"


@pytest.mark.parametrize(
    "config",
    [{}, {"r": 4}, {"lora_alpha": 8}, {"r": 4, "lora_alpha": None}, {"r": 4, "lora_alpha": "8"}, [], "x"],
    ids=str,
)
def test_a_configuration_without_rank_or_alpha_is_refused(adapter: Path, config: Any) -> None:
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    assert refused(adapter).reason == "ADAPTER_INVALID"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(adapter: Path, name: str) -> None:
    (adapter / name).unlink()
    error = refused(adapter)
    assert error.reason == "ADAPTER_INVALID"
    assert name in str(error)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_file_is_an_input_error(adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(b"nonsense")
    with pytest.raises((Refusal, ValueError), match=name.replace(".", r"\.")):
        read_adapter(adapter)


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("rank_pattern", {r"(([a-z_.0-9]+)*)*!": 4}),
        ("alpha_pattern", {r"(.|.|.)*!": 4}),
        ("target_modules", r"(([a-z_.0-9]+)*)*!"),
        ("exclude_modules", r"(.|.|.)*!"),
    ],
)
def test_a_pattern_that_never_ends_is_refused(tmp_path: Path, key: str, pattern: Any) -> None:
    directory = write_adapter(tmp_path / "a", **{key: pattern})
    error = refused(directory, seconds=0.2)
    assert error.reason == "ADAPTER_INVALID"
    assert "to match" in str(error)


def test_a_pattern_that_never_ends_on_a_module_of_the_base_is_refused(tmp_path: Path) -> None:
    """PEFT matches it with every module of the model, adapted or not."""
    directory = write_adapter(tmp_path / "a", target_modules=r"vision(.|.|.)*!")
    read_adapter(directory)
    for tensor in ("vision_tower.encoder.layers.0.norm.weight", "vision_tower.encoder.layers.0.norm.a.b"):
        error = refused(directory, base_tensors=[tensor], seconds=0.2)
        assert "to match" in str(error)


@pytest.mark.parametrize("pattern", ["(", "*", "(?P<a>x)(?P<a>x)", "a{99999999999}", "x" * 5000])
def test_a_pattern_that_is_none_is_refused(tmp_path: Path, pattern: str) -> None:
    error = refused(write_adapter(tmp_path / "a", rank_pattern={pattern: 4}))
    assert error.reason == "ADAPTER_INVALID"
    assert pattern[:20] in str(error)


@pytest.mark.parametrize(
    "config",
    [
        {"alpha_pattern": {"q_proj": "4"}},
        {"alpha_pattern": {"q_proj": None}},
        {"rank_pattern": ["q_proj"]},
        {"lora_alpha": float("nan")},
        {"alpha_pattern": {"q_proj": float("inf")}},
        {"target_modules": {"q_proj": 1}},
        {"r": 0},
        {"r": True},
    ],
    ids=str,
)
def test_nonsense_in_the_configuration_is_named(tmp_path: Path, config: dict[str, Any]) -> None:
    directory = write_adapter(tmp_path / "a")
    write_config(directory, **config)
    error = refused(directory)
    assert error.reason == "ADAPTER_INVALID"
    assert next(iter(config)) in str(error)


def test_a_huge_configuration_is_not_read(adapter: Path) -> None:
    with (adapter / "adapter_config.json").open("r+b") as file:
        file.truncate(9 << 20)
    assert "is larger than" in str(refused(adapter))


def test_a_huge_header_is_not_read(adapter: Path) -> None:
    with (adapter / "adapter_model.safetensors").open("r+b") as file:
        file.write((17 << 20).to_bytes(8, "little"))
        file.truncate(20 << 20)
    with pytest.raises(ValueError, match="at most 16777216 are read"):
        read_adapter(adapter)
