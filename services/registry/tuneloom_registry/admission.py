"""What an artifact from outside must be before it becomes a version, so that a broken one is refused and not served.

Pure: manifests in, errors out. Look-ups belong to the service.
"""

from __future__ import annotations

import math

from tuneloom_common.errors import FailedPrecondition, InvalidArgument, NotFound
from tuneloom_common.ids import check_id
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Lora, Manifest
from tuneloom_registry.weights import adapter_config, headers
from tuneloom_registry.weights.adapters import WEIGHTS_FILE

_LARGEST = {
    adapter_config.CONFIG_FILE: adapter_config.MAX_CONFIG_BYTES,
    "config.json": adapter_config.MAX_CONFIG_BYTES,
    headers.INDEX_FILE: headers.MAX_INDEX_BYTES,
}


def check_contents(manifest: Manifest) -> None:
    """Its own parts make sense; raises with the field at fault."""
    if manifest.base is not None:
        check_id(manifest.base.model, field="base.model")
    if manifest.kind is Kind.ADAPTER:
        paths = {file.path for file in manifest.files}
        if missing := [name for name in (adapter_config.CONFIG_FILE, WEIGHTS_FILE) if name not in paths]:
            raise InvalidArgument(
                f"files: an adapter needs {missing[0]}; register what PEFT's save_pretrained writes", field="files"
            )
    for file in manifest.files:
        if file.size > _LARGEST.get(file.path, file.size):
            raise InvalidArgument(f"files: {file.path} is larger than {_LARGEST[file.path]} bytes", field="files")
    if manifest.lora is not None:
        _check_lora(manifest.lora)


def check_base(reference: BaseRef, found: Manifest | None) -> None:
    """`found` is the version with the reference's digest in the reference's model, None when there is none."""
    if found is None:
        raise NotFound(
            f"base: models/{reference.model} has no version with digest {reference.digest}; import the base first, or "
            "name the one that was trained on",
            reason="BASE_NOT_FOUND",
        )
    if not found.kind.full_weights:
        raise FailedPrecondition(
            f"base: {reference.model}@sha256:{reference.digest} is of kind {found.kind}; a base has full weights, so "
            "name a base or merged version",
            reason="BASE_NOT_FULL_WEIGHTS",
        )


def _check_lora(lora: Lora) -> None:
    if lora.r < 1 or not math.isfinite(lora.alpha) or not lora.targets:
        raise InvalidArgument("lora: r is at least 1, alpha a number, and targets name linear layers", field="lora")
