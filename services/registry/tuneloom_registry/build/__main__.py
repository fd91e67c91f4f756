"""Entry point: `python -m tuneloom_registry.build DIRECTORY`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tuneloom_common.children import COMPUTE_ENVIRONMENT, die_with_parent
from tuneloom_common.kinds import Kind
from tuneloom_registry.build.adapters import Adapter
from tuneloom_registry.build.convert import convert
from tuneloom_registry.build.failures import BuildFailed
from tuneloom_registry.build.merge import merge


def main(directory: Path) -> None:
    """Runs the build in a directory and writes result.json last."""
    spec: dict[str, Any] = json.loads((directory / "build.json").read_bytes())
    try:
        result = _convert(directory, spec) if spec["action"] == "convert" else _merge(directory, spec)
    except (BuildFailed, ValueError) as error:
        reason = error.reason if isinstance(error, BuildFailed) else "INVALID_INPUT"
        result = {"ok": False, "reason": reason, "error": str(error)}
    staged = directory / "result.json.part"
    staged.write_text(json.dumps(result))
    staged.rename(directory / "result.json")


def _convert(directory: Path, spec: dict[str, Any]) -> dict[str, Any]:
    adapter = convert(
        directory / "source",
        directory / "base",
        directory / "out",
        base_name=spec["base_name"],
        max_shard_bytes=spec["max_shard_size_bytes"],
    )
    kind = Kind.BASE if adapter is None else Kind.ADAPTER
    return {"ok": True, "kind": kind, "lora": adapter and _lora(adapter), "proof": None}


def _merge(directory: Path, spec: dict[str, Any]) -> dict[str, Any]:
    def tell(text: str) -> None:
        (directory / "progress").write_text(text)

    base, source, out = directory / "base", directory / "source", directory / "out"
    adapter = merge(
        base,
        source,
        out,
        max_shard_bytes=spec["max_shard_size_bytes"],
        on_progress=lambda done, total: tell(f"merged {done} of {total} tensors"),
    )
    os.environ.update(COMPUTE_ENVIRONMENT)
    from tuneloom_registry.build.prove import DEFAULT_PROMPTS, prove

    prompts = tuple(dict.fromkeys((*spec["proof_prompts"], *DEFAULT_PROMPTS)))
    tell(f"proving on {len(prompts)} prompts")
    proof = prove(
        base,
        source,
        out,
        prompts=prompts,
        dtype=spec["proof_dtype"],
        min_greedy_agreement=spec["min_greedy_agreement"],
    )
    return {"ok": True, "kind": Kind.MERGED, "lora": _lora(adapter), "proof": proof.model_dump()}


def _lora(adapter: Adapter) -> dict[str, Any]:
    return {
        "r": adapter.config["r"],
        "alpha": adapter.config["lora_alpha"],
        "targets": adapter.targets,
        "rslora": bool(adapter.config.get("use_rslora")),
    }


if __name__ == "__main__":
    die_with_parent()
    main(Path(sys.argv[1]))
