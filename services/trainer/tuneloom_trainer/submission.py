"""What a job must be before it is queued: resolved into one frozen spec and held against what is registered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tuneloom.trainer.v1 import jobs_pb2
from tuneloom_client.registry import RegistryClient
from tuneloom_client.versions import Version
from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_common.kinds import Kind
from tuneloom_common.names import parse_name
from tuneloom_trainer import mapping
from tuneloom_trainer.bases import Bases
from tuneloom_trainer.jobs import Artifact
from tuneloom_trainer.specs import Recipe, TrainingSpec, resolve
from tuneloom_trainer.store.jobs import NewJob

DEFAULT_RECIPE = "qlora"


class Submission:
    """Checks requests. `max_lora_rank` is what the engines here serve."""

    def __init__(
        self, *, registry: RegistryClient, recipes: Mapping[str, Recipe], bases: Bases, max_lora_rank: int
    ) -> None:
        self._registry = registry
        self._recipes = recipes
        self._bases = bases
        self._max_lora_rank = max_lora_rank

    async def check(self, wanted: jobs_pb2.TrainingJob, *, request_id: str = "") -> NewJob:
        """The job as it would be stored; raises with the field at fault."""
        recipe = wanted.recipe or DEFAULT_RECIPE
        overrides = mapping.overrides(wanted.spec)
        spec = resolve(self._recipes, recipe, overrides)
        self._require_servable(spec)
        output_model = f"models/{parse_name(wanted.output_model, 'models', field='output_model')}"
        if not wanted.base_model:
            raise InvalidArgument("base_model: name a model, 'tuneloom models list' shows them", field="base_model")
        base, dataset = await asyncio.gather(
            self._resolve("base_model", wanted.base_model), self._resolve("dataset", wanted.dataset)
        )
        _require_trainable(wanted.base_model, base, output_model)
        _require_rows(wanted.dataset, dataset)
        spec = await self._bases.fit(spec, base.manifest, base_model=wanted.base_model, asked=overrides)
        return NewJob(
            base_model=wanted.base_model,
            base=Artifact(str(base.name), base.digest),
            dataset=Artifact(str(dataset.name), dataset.digest),
            output_model=output_model,
            recipe=recipe,
            spec=spec,
            merge=wanted.merge and spec.tuning == "lora",
            promote=not wanted.no_promote,
            request=mapping.requested(wanted),
            request_id=request_id,
        )

    def _require_servable(self, spec: TrainingSpec) -> None:
        if spec.tuning == "lora" and spec.lora.r > self._max_lora_rank:
            raise InvalidArgument(
                f"spec.lora.r: the engines here serve adapters up to rank {self._max_lora_rank}, not {spec.lora.r}; "
                "lower it, or raise TUNELOOM_ENGINE_MAX_LORA_RANK and TUNELOOM_TRAINER_MAX_LORA_RANK",
                field="spec.lora.r",
                reason="NOT_SERVABLE",
            )

    async def _resolve(self, field: str, reference: str) -> Version:
        if not reference:
            raise InvalidArgument(f"{field}: must be set", field=field)
        try:
            return await self._registry.resolve(reference)
        except NotFound as error:
            raise NotFound(f"{field}: {error.message}", field=field, metadata=error.metadata) from None


def _require_trainable(asked: str, base: Version, output_model: str) -> None:
    if output_model == base.name.parent:
        raise InvalidArgument(
            f"output_model: {output_model} is the base itself; give the result a name of its own",
            field="output_model",
        )
    if not base.manifest.kind.trainable:
        raise InvalidArgument(
            f"base_model: {asked} is a {base.manifest.kind}; train on a base or a merged model", field="base_model"
        )


def _require_rows(asked: str, dataset: Version) -> None:
    if dataset.manifest.kind is not Kind.DATASET:
        raise InvalidArgument(f"dataset: {asked} is a {dataset.manifest.kind}", field="dataset")
    if (count := len(dataset.manifest.files)) != 1:
        raise InvalidArgument(f"dataset: {asked} holds {count} files; put the rows into one file", field="dataset")
