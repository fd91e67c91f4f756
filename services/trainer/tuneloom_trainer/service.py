"""The gRPC face of the trainer. Handlers translate, call one use case and translate back; no handler has a `try`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tuneloom.trainer.v1 import jobs_pb2, trainer_pb2, trainer_pb2_grpc
from tuneloom_common.errors import InvalidArgument, NotFound
from tuneloom_common.kinds import Kind
from tuneloom_common.names import parse_name
from tuneloom_common.paging import decode_number, encode_token, page_limit
from tuneloom_trainer import mapping
from tuneloom_trainer.bases import Bases
from tuneloom_trainer.job_logs import JobLogs
from tuneloom_trainer.registry_client import RegistryClient, parent_of
from tuneloom_trainer.specs import Recipe, resolve
from tuneloom_trainer.store import JobStore

WATCH_POLL_SECONDS = 1.0
DEFAULT_RECIPE = "qlora"
MAX_REQUEST_ID_CHARS = 128

SCOPES = {
    "CreateTrainingJob": "trainer:write",
    "GetTrainingJob": "trainer:read",
    "ListTrainingJobs": "trainer:read",
    "CancelTrainingJob": "trainer:write",
    "PauseTrainingJob": "trainer:write",
    "ResumeTrainingJob": "trainer:write",
    "WatchTrainingJob": "trainer:read",
    "ListCheckpoints": "trainer:read",
    "ReadTrainingJobLog": "trainer:read",
    "ListRecipes": "trainer:read",
}


class TrainerService(trainer_pb2_grpc.TrainerServiceServicer):
    """See trainer.proto."""

    def __init__(
        self,
        *,
        store: JobStore,
        registry: RegistryClient,
        recipes: dict[str, Recipe],
        max_lora_rank: int,
        logs: JobLogs,
        bases: Bases,
    ) -> None:
        self._store = store
        self._bases = bases
        self._logs = logs
        self._registry = registry
        self._recipes = recipes
        self._max_lora_rank = max_lora_rank

    async def CreateTrainingJob(  # noqa: N802
        self, request: trainer_pb2.CreateTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        wanted = request.training_job
        if len(request.request_id) > MAX_REQUEST_ID_CHARS:
            raise InvalidArgument(f"request_id: longer than {MAX_REQUEST_ID_CHARS} characters", field="request_id")
        recipe = wanted.recipe or DEFAULT_RECIPE
        overrides = mapping.overrides(wanted.spec)
        spec = resolve(self._recipes, recipe, overrides)
        if spec.tuning == "lora" and spec.lora.r > self._max_lora_rank:
            raise InvalidArgument(
                f"spec.lora.r: the engines here serve adapters up to rank {self._max_lora_rank}, not {spec.lora.r}; "
                "lower it, or raise TUNELOOM_ENGINE_MAX_LORA_RANK and TUNELOOM_TRAINER_MAX_LORA_RANK",
                field="spec.lora.r",
                reason="NOT_SERVABLE",
            )
        output_model = f"models/{parse_name(wanted.output_model, 'models', field='output_model')}"
        if not wanted.base_model:
            raise InvalidArgument("base_model: name a model, 'tuneloom models list' shows them", field="base_model")
        (base, base_manifest), (dataset, data_manifest) = await asyncio.gather(
            self._resolve("base_model", wanted.base_model), self._resolve("dataset", wanted.dataset)
        )
        if output_model == parent_of(base.name):
            raise InvalidArgument(
                f"output_model: {output_model} is the base itself; give the result a name of its own",
                field="output_model",
            )
        if not base_manifest.kind.trainable:
            raise InvalidArgument(
                f"base_model: {wanted.base_model} is a {base_manifest.kind}; train on a base or a merged model",
                field="base_model",
            )
        if data_manifest.kind is not Kind.DATASET:
            raise InvalidArgument(f"dataset: {wanted.dataset} is a {data_manifest.kind}", field="dataset")
        if len(data_manifest.files) != 1:
            raise InvalidArgument(
                f"dataset: {wanted.dataset} holds {len(data_manifest.files)} files; put the rows into one file",
                field="dataset",
            )
        spec = await self._bases.fit(spec, base_manifest, base_model=wanted.base_model, asked=overrides)
        merge = wanted.merge and spec.tuning == "lora"
        if request.validate_only:
            return jobs_pb2.TrainingJob(
                base_model=wanted.base_model,
                dataset=dataset.name,
                output_model=output_model,
                recipe=recipe,
                spec=mapping.to_spec(spec),
                merge=merge,
            )
        job = await self._store.create(
            base_model=wanted.base_model,
            base=base,
            dataset=dataset,
            output_model=output_model,
            recipe=recipe,
            spec=spec,
            merge=merge,
            request_id=request.request_id,
        )
        return mapping.to_job(job)

    async def _resolve(self, field: str, reference: str) -> Any:
        if not reference:
            raise InvalidArgument(f"{field}: must be set", field=field)
        try:
            return await self._registry.resolve(reference)
        except NotFound as error:
            raise NotFound(f"{field}: {error.message}", field=field, metadata=error.metadata) from None

    async def GetTrainingJob(  # noqa: N802
        self, request: trainer_pb2.GetTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.get(_job_id(request.name)))

    async def ListTrainingJobs(  # noqa: N802
        self, request: trainer_pb2.ListTrainingJobsRequest, context: Any
    ) -> trainer_pb2.ListTrainingJobsResponse:
        limit = page_limit(request.page_size)
        found = await self._store.list_jobs(before=decode_number(request.page_token), limit=limit + 1)
        return trainer_pb2.ListTrainingJobsResponse(
            training_jobs=[mapping.to_job(job) for _, job in found[:limit]],
            next_page_token=encode_token(str(found[limit - 1][0])) if len(found) > limit else "",
        )

    async def CancelTrainingJob(  # noqa: N802
        self, request: trainer_pb2.CancelTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.request_cancel(_job_id(request.name)))

    async def PauseTrainingJob(  # noqa: N802
        self, request: trainer_pb2.PauseTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.request_pause(_job_id(request.name)))

    async def ResumeTrainingJob(  # noqa: N802
        self, request: trainer_pb2.ResumeTrainingJobRequest, context: Any
    ) -> jobs_pb2.TrainingJob:
        return mapping.to_job(await self._store.resume(_job_id(request.name)))

    async def WatchTrainingJob(  # noqa: N802
        self, request: trainer_pb2.WatchTrainingJobRequest, context: Any
    ) -> AsyncIterator[trainer_pb2.TrainingJobEvent]:
        job_id, sequence = _job_id(request.name), request.after_sequence
        while True:
            rings = self._store.bell.rings
            ended = (await self._store.get(job_id)).state.final  # read before the events: none can follow
            events = await self._store.events_after(job_id, sequence)
            for event in events:
                sequence = event.sequence
                yield mapping.to_event(job_id, event)
            if events:
                continue
            if ended:
                return
            await self._store.bell.wait(WATCH_POLL_SECONDS, since=rings)

    async def ListCheckpoints(  # noqa: N802
        self, request: trainer_pb2.ListCheckpointsRequest, context: Any
    ) -> trainer_pb2.ListCheckpointsResponse:
        limit = page_limit(request.page_size)
        found = await self._store.list_checkpoints(
            _job_id(request.parent, field="parent"), before=decode_number(request.page_token), limit=limit + 1
        )
        return trainer_pb2.ListCheckpointsResponse(
            checkpoints=[mapping.to_checkpoint(checkpoint) for checkpoint in found[:limit]],
            next_page_token=encode_token(str(found[limit - 1].step)) if len(found) > limit else "",
        )

    async def ReadTrainingJobLog(  # noqa: N802
        self, request: trainer_pb2.ReadTrainingJobLogRequest, context: Any
    ) -> trainer_pb2.ReadTrainingJobLogResponse:
        job = await self._store.get(_job_id(request.name))
        tail = await self._logs.tail(job, max_bytes=request.max_bytes)
        return trainer_pb2.ReadTrainingJobLogResponse(text=tail.text, truncated=tail.truncated)

    async def ListRecipes(  # noqa: N802
        self, request: trainer_pb2.ListRecipesRequest, context: Any
    ) -> trainer_pb2.ListRecipesResponse:
        return trainer_pb2.ListRecipesResponse(recipes=[mapping.to_recipe(recipe) for recipe in self._recipes.values()])


def _job_id(name: str, *, field: str = "name") -> str:
    return parse_name(name, "trainingJobs", field=field)
