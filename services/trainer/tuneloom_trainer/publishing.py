"""Turns what a worker leaves into registered versions: checkpoints while it trains, results at the end."""

from __future__ import annotations

import asyncio
import hashlib
import json
from importlib.metadata import version as distribution_version
from pathlib import Path

from tuneloom.registry.v1 import builds_pb2
from tuneloom_common.kinds import Kind
from tuneloom_common.manifests import BaseRef, Lineage, Manifest, Template, canonical_json
from tuneloom_common.names import VersionName
from tuneloom_common.objects import ObjectStore
from tuneloom_trainer.jobs import Job
from tuneloom_trainer.registry_client import RegistryClient


class Publisher:
    """Blobs first, manifest last, everything under the job's lease."""

    def __init__(self, *, objects: ObjectStore, registry: RegistryClient) -> None:
        self._objects = objects
        self._registry = registry

    async def checkpoint(self, job: Job, path: Path, *, step: int) -> str:
        """Registers a checkpoint directory as a version of the job's own model; returns its name."""
        files = await self._objects.put_directory(path)
        record = json.loads(await asyncio.to_thread((path / "checkpoint.json").read_bytes))
        template = record["template"]
        manifest = Manifest(
            kind=Kind.CHECKPOINT,
            files=files,
            base=BaseRef(model=VersionName.parse(job.base.name).id, digest=job.base.digest),
            template=Template(**{**template, "stop_tokens": tuple(template["stop_tokens"])}),
            quantization=job.spec.quantization,
            lineage=Lineage(
                job=job.id,
                step=step,
                datasets=(job.dataset.digest,),
                recipe=hashlib.sha256(canonical_json(job.spec.model_dump(mode="json"))).hexdigest(),
                seed=job.spec.seed,
                code_version=distribution_version("tuneloom-trainer"),
            ),
        )
        await self._registry.ensure_model(collection_of(job), training_job=job.name)
        return await self._registry.register(collection_of(job), manifest, job=job)

    async def live_model(self, job: Job, checkpoint: str, *, step: int) -> None:
        """Makes a checkpoint answer at the gateway as "{job}@{step}"."""
        await self._registry.build(
            builds_pb2.Build(convert=builds_pb2.ConvertSpec(checkpoint=checkpoint)),
            job=job,
            target_model=collection_of(job),
            aliases=[str(step), "default"],
            request_id=f"{job.id}-{checkpoint}-{job.lease_epoch}-live",
        )

    async def result(self, job: Job, checkpoint: str) -> str:
        """Converts the last checkpoint into the output model; returns the version's name."""
        await self._registry.ensure_model(job.output_model)
        return await self._registry.build(
            builds_pb2.Build(convert=builds_pb2.ConvertSpec(checkpoint=checkpoint)),
            job=job,
            target_model=job.output_model,
            aliases=[],
            request_id=f"{job.id}-{checkpoint}-{job.lease_epoch}-result",
        )

    async def merged(self, job: Job, adapter: str) -> str:
        """Merges and proves the result; returns the merged version's name."""
        prompts = job.spec.sample_prompts
        return await self._registry.build(
            builds_pb2.Build(merge=builds_pb2.MergeSpec(adapter=adapter, proof_prompts=prompts)),
            job=job,
            target_model=job.output_model,
            aliases=["merged"],
            request_id=f"{job.id}-{adapter}-{job.lease_epoch}-merged",
        )


def collection_of(job: Job) -> str:
    """The model that collects a job's checkpoints, so that "{job}@{step}" is an ordinary name."""
    return f"models/{job.id}"
