"""Against the real thing: transformers loads what we write, PEFT merges as we do, and the proof means something."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.registry.transforms.conftest import arrays, write_safetensors
from tuneloom_common.manifests import Lora
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.transforms.__main__ import transform
from tuneloom_registry.transforms.merge import merge
from tuneloom_registry.transforms.specs import TransformRefusal, TransformResult, TransformSpec, read_answer
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights.headers import read_header, read_model
from tuneloom_registry.weights.patterns import Overrides
from tuneloom_registry.weights.tensors import read_float32

pytestmark = [
    pytest.mark.worker,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
UNLIMITED = 1 << 40
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random bf16 Qwen2 of 20,000 weights with a tokenizer of bytes, in `base`, and a LoRA on it in `adapter`."""
    import torch
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    directory = tmp_path_factory.mktemp("tiny")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: i for i, letter in enumerate(["<end>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<end>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(directory / "base")

    torch.set_num_threads(1)  # threads cost such a small model more than they give
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(vocabulary), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True, initializer_range=0.3, eos_token_id=0,
    )  # fmt: skip
    model: Any = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(directory / "base")
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules=LINEAR, rank_pattern={"q_proj": 2}, alpha_pattern={"up_proj": 16},
        use_rslora=True, init_lora_weights=False, task_type="CAUSAL_LM",
    )  # fmt: skip
    get_peft_model(model, lora).save_pretrained(directory / "adapter")
    return directory


@pytest.fixture
def merged(tiny: Path, tmp_path: Path) -> Path:
    merge(tiny / "base", tiny / "adapter", tmp_path / "merged", max_shard_bytes=UNLIMITED)
    return tmp_path / "merged"


def load(directory: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, local_files_only=True).eval()


def altered(adapter: Path, out: Path, change: Any) -> Path:
    """A copy of an adapter with every B matrix changed."""
    out.mkdir()
    (out / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    tensors = {}
    for name, tensor in read_header(adapter / "adapter_model.safetensors").items():
        values = read_float32(tensor)
        tensors[name] = ("F32", change(values) if ".lora_B." in name else values)
    write_safetensors(out / "adapter_model.safetensors", tensors)
    return out


def prove(base: Path, adapter: Path, merged: Path, **more: Any) -> Any:
    from tuneloom_registry.proof.prove import prove as run

    return run(
        base,
        adapter,
        merged,
        **{"prompts": ("Hello!", "你好"), "dtype": "float32", "min_greedy_agreement": 0.9, **more},
    )


def test_our_merge_is_pefts_merge_within_bf16_rounding(tiny: Path, merged: Path) -> None:
    from peft import PeftModel

    peer = PeftModel.from_pretrained(load(tiny / "base"), tiny / "adapter").merge_and_unload().state_dict()
    base, ours = arrays(tiny / "base"), arrays(merged)
    touched = 0
    for name, got in ours.items():
        wanted = peer[name].float().numpy()
        allowed = np.maximum(np.abs(got), np.abs(wanted)) / 128 + np.abs(got - base[name]) / 256
        assert (np.abs(got - wanted) <= allowed).all(), name
        touched += not np.array_equal(got, base[name])
    assert touched == 2 * len(LINEAR)


def test_transformers_loads_the_shards(tiny: Path, merged: Path, tmp_path: Path) -> None:
    import torch

    merge(tiny / "base", tiny / "adapter", tmp_path / "sharded", max_shard_bytes=10_000)
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    whole, sharded = load(merged).state_dict(), load(tmp_path / "sharded").state_dict()
    assert all(torch.equal(whole[name], sharded[name]) for name in whole)
    stored = arrays(merged)
    assert all(np.array_equal(whole[name].float().numpy(), stored[name]) for name in stored)


def test_a_good_merge_is_proven(tiny: Path, merged: Path) -> None:
    proof = prove(tiny / "base", tiny / "adapter", merged)
    assert proof.greedy_agreement >= 0.9
    assert proof.prompts == 2
    assert proof.positions >= 2
    assert proof.adapter_effect > 10 * proof.max_logit_diff
    assert 0 <= proof.mean_kl < 0.1
    assert proof.dtype == "float32"


def test_a_tampered_merge_is_refused(tiny: Path, tmp_path: Path) -> None:
    other = altered(tiny / "adapter", tmp_path / "other", lambda b: -b)
    merge(tiny / "base", other, tmp_path / "tampered", max_shard_bytes=UNLIMITED)
    with pytest.raises(Refusal, match="agrees with the adapter on") as caught:
        prove(tiny / "base", tiny / "adapter", tmp_path / "tampered")
    assert caught.value.reason == "PROOF_FAILED"


def test_the_base_passed_off_as_the_merge_is_refused(tiny: Path) -> None:
    with pytest.raises(Refusal) as caught:
        prove(tiny / "base", tiny / "adapter", tiny / "base")
    assert caught.value.reason == "PROOF_FAILED"


@pytest.mark.parametrize("min_greedy_agreement", [0.0, 0.99])
def test_a_merge_that_computes_nothing_is_refused(tiny: Path, merged: Path, min_greedy_agreement: float) -> None:
    """NaN compares false with everything: it must not slip through, whatever agreement is asked for."""
    tensors = read_model(merged)
    norm = tensors["model.norm.weight"]
    data = bytearray(norm.file.read_bytes())
    data[norm.start : norm.start + norm.size] = b"\xc0\x7f" * (norm.size // 2)
    norm.file.write_bytes(data)
    with pytest.raises(Refusal) as caught:
        prove(tiny / "base", tiny / "adapter", merged, min_greedy_agreement=min_greedy_agreement)
    assert caught.value.reason == "PROOF_FAILED"


def test_an_adapter_without_effect_proves_nothing(tiny: Path, tmp_path: Path) -> None:
    zero = altered(tiny / "adapter", tmp_path / "zero", lambda b: b * 0)
    merge(tiny / "base", zero, tmp_path / "merged", max_shard_bytes=UNLIMITED)
    with pytest.raises(Refusal) as caught:
        prove(tiny / "base", zero, tmp_path / "merged")
    assert caught.value.reason == "NO_EFFECT"


def run_build(directory: Path, tiny: Path, adapter: Path) -> TransformResult | TransformRefusal:
    workspace = Workspace(directory)
    workspace.base.symlink_to(tiny / "base")
    workspace.source.symlink_to(adapter)
    spec = TransformSpec(
        action="merge",
        base_name="tiny--0123456789ab",
        max_shard_size_bytes=UNLIMITED,
        proof_prompts=("Hello!", "Hello!"),
        min_greedy_agreement=0.8,
    )
    transform(workspace, spec)
    return read_answer(workspace.result, TransformResult)


def test_the_build_process_leaves_a_proven_model(tiny: Path, tmp_path: Path) -> None:
    result = run_build(tmp_path, tiny, tiny / "adapter")
    assert isinstance(result, TransformResult)
    assert result.kind == "merged"
    assert result.lora == Lora(r=4, alpha=8, targets=tuple(sorted(LINEAR)), rslora=True)
    assert result.proof is not None
    assert result.proof.prompts == 8  # the built-in ones; what is asked for twice is asked once
    assert (tmp_path / "out/tokenizer.json").read_bytes() == (tiny / "base/tokenizer.json").read_bytes()
    assert not (tmp_path / "result.json.part").exists()


def test_a_merge_repeated_after_a_kill_gives_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    first = run_build(tmp_path, tiny, tiny / "adapter")
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "result.json").unlink()
    (tmp_path / "out/model.safetensors").write_bytes(whole["model.safetensors"][:1000])
    (tmp_path / "base").unlink()
    (tmp_path / "source").unlink()
    assert run_build(tmp_path, tiny, tiny / "adapter") == first
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole


def test_the_build_process_says_why_it_refuses(tiny: Path, tmp_path: Path) -> None:
    zero = altered(tiny / "adapter", tmp_path / "zero", lambda b: b * 0)
    result = run_build(tmp_path, tiny, zero)
    assert isinstance(result, TransformRefusal)
    assert result.reason == "NO_EFFECT"


PATTERNS = [
    "q_proj", "proj", r".*\.q_proj", r"self_attn\.q_proj", "model.layers.0.self_attn.q_proj", r"layers\.\d+\..*_proj",
    r".*(self_attn|mlp)\.(q|v|down)_proj", r"^model.*", r"q_proj$", r"(?!.*mlp).*", "", ".", "layers", r"[a-z_]+",
    "model", r"\w+\.1\.mlp\.up_proj", "a)|(.*up_proj",
]  # fmt: skip
MODULES = [f"model.layers.{i}.{name}" for i in (0, 1, 10) for name in ("self_attn.q_proj", "mlp.up_proj")] + ["lm_head"]


@pytest.mark.parametrize("first", PATTERNS)
def test_patterns_mean_what_they_mean_to_peft(first: str) -> None:
    from peft.utils.other import get_pattern_key

    for second in PATTERNS:
        by_pattern = {first: 1, second: 2}
        ours = Overrides(by_pattern)
        for module in MODULES:
            assert ours.get(module, 0) == by_pattern.get(get_pattern_key(list(by_pattern), module), 0), (second, module)
