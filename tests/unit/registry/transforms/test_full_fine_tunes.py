"""A full fine-tune of real models whose files hold more, or fewer, names than they have parameters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Manifest
from tuneloom_common.objects import ObjectStore
from tuneloom_registry.refusals import Refusal
from tuneloom_registry.transforms import convert
from tuneloom_registry.transforms.preparation import prepare
from tuneloom_registry.transforms.specs import TransformSpec
from tuneloom_registry.transforms.workspace import Workspace
from tuneloom_registry.weights.headers import read_model

pytestmark = [
    pytest.mark.worker,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]
HEAD, EMBEDDINGS, FREQUENCIES = "lm_head.weight", "model.embed_tokens.weight", "model.rotary_emb.inv_freq"
Change = Callable[[dict[str, Any]], None]


def save_base(directory: Path, change: Change, *, tied: bool = True) -> Path:
    """A random tiny Qwen2 whose stored tensors were changed."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied, initializer_range=0.3,
    )  # fmt: skip
    model: Any = Qwen2ForCausalLM(config)
    model.save_pretrained(directory)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def load(directory: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()


def train(base: Path, checkpoint: Path) -> Any:
    """Every parameter moves, and the trainer saves them as it does: by `named_parameters`."""
    import torch
    from safetensors.torch import save_file

    model = load(base)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    checkpoint.mkdir()
    weights = {name: value.detach().contiguous() for name, value in model.named_parameters()}
    save_file(weights, checkpoint / "weights.safetensors", metadata={"format": "pt"})
    (checkpoint / "checkpoint.json").write_text("{}")
    return model


async def converted(tmp_path: Path, base: Path) -> Path:
    """Through the object store, so that only declared inputs are there."""
    objects = await ObjectStore(f"file://{tmp_path}/objects").create()
    workspace = Workspace(tmp_path / "workspace")
    spec = TransformSpec(action="convert", base_name="qwen--0123456789ab")
    source = Manifest(
        kind=Kind.CHECKPOINT,
        files=await objects.put_directory(tmp_path / "checkpoint"),
        base=BaseRef(model="qwen", digest="0" * 64),
    )
    stored = Manifest(kind=Kind.BASE, files=await objects.put_directory(base))
    await prepare(workspace, spec, source=source, base=stored, objects=objects)
    convert.run(workspace, spec)
    return workspace.out


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.arange(40).reshape(4, 10)).logits


def nothing(tensors: dict[str, Any]) -> None:
    pass


def store_tied_head(tensors: dict[str, Any]) -> None:
    tensors[HEAD] = tensors[EMBEDDINGS].clone()


def store_tied_head_in_half_precision(tensors: dict[str, Any]) -> None:
    tensors[EMBEDDINGS] = tensors[EMBEDDINGS].bfloat16().float()
    tensors[HEAD] = tensors[EMBEDDINGS].bfloat16()


def store_head_alone(tensors: dict[str, Any]) -> None:
    tensors[HEAD] = tensors.pop(EMBEDDINGS)


def store_other_head(tensors: dict[str, Any]) -> None:
    """Declared as tied and yet different: transformers then trains both."""
    tensors[HEAD] = tensors[EMBEDDINGS] * 2


def store_buffers(tensors: dict[str, Any]) -> None:
    import torch

    tensors[FREQUENCIES] = torch.tensor([1.0, 0.01, 0.0, 0.0])
    tensors["model.layers.0.self_attn.position_ids"] = torch.arange(16).reshape(1, 16)


@pytest.mark.parametrize(
    ("change", "tied"),
    [
        (nothing, True),
        (nothing, False),
        (store_tied_head, True),
        (store_tied_head_in_half_precision, True),
        (store_head_alone, True),
        (store_other_head, True),
        (store_buffers, True),
    ],
)
async def test_what_was_trained_is_what_is_stored(tmp_path: Path, change: Change, tied: bool) -> None:
    import torch

    base = save_base(tmp_path / "base", change, tied=tied)
    trained = train(base, tmp_path / "checkpoint")
    out = await converted(tmp_path, base)
    before, after = read_model(base), read_model(out)
    assert {name: (t.dtype, t.shape) for name, t in after.items()} == {
        name: (t.dtype, t.shape) for name, t in before.items()
    }
    again = load(out)
    if change is store_tied_head_in_half_precision:  # rounded once, so no longer equal to the embeddings
        assert torch.allclose(again.lm_head.weight, trained.lm_head.weight.bfloat16().float())
    else:
        assert torch.equal(logits(again), logits(trained))


async def test_a_buffer_keeps_its_bytes(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", store_buffers)
    train(base, tmp_path / "checkpoint")
    out = await converted(tmp_path, base)
    for name in (FREQUENCIES, "model.layers.0.self_attn.position_ids"):
        before, after = read_model(base)[name], read_model(out)[name]
        assert (
            before.file.read_bytes()[before.start :][: before.size]
            == after.file.read_bytes()[after.start :][: after.size]
        )


async def test_a_base_under_other_names_is_refused(tmp_path: Path) -> None:
    """Its weights would be copied untrained."""

    def unprefixed(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)

    base = save_base(tmp_path / "base", unprefixed)
    train(base, tmp_path / "checkpoint")
    with pytest.raises(Refusal, match="does not store under these names") as caught:
        await converted(tmp_path, base)
    assert caught.value.reason == "CHECKPOINT_INVALID"
