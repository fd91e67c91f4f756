from __future__ import annotations

import asyncio

import pytest

from tests.unit.registry.conftest import Clock, manifest
from tuneloom_common.errors import Aborted, AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from tuneloom_common.manifests import Lineage, Manifest
from tuneloom_common.names import Reference, VersionName
from tuneloom_registry.store import VersionStore
from tuneloom_registry.store.versions import MODELS
from tuneloom_registry.versions import Fence

MODEL = "models/a"


@pytest.fixture
async def store(versions: VersionStore) -> VersionStore:
    await versions.create_collection(MODEL)
    return versions


async def number_of(store: VersionStore, text: str) -> int:
    return (await store.resolve(Reference.parse(text))).name.number


async def test_a_name_is_taken_once(store: VersionStore) -> None:
    with pytest.raises(AlreadyExists, match="models/a exists"):
        await store.create_collection(MODEL)
    with pytest.raises(AlreadyExists):
        await store.create_collection(MODEL, request_id="r-1")
    await store.create_collection("datasets/a")


async def test_a_repeated_request_gives_what_it_made(store: VersionStore, clock: Clock) -> None:
    first = await store.create_collection("models/b", request_id="r-1", training_job="trainingJobs/j")
    clock.advance(60)
    assert await store.create_collection("models/b", request_id="r-1") == first
    with pytest.raises(InvalidArgument, match="has created models/b") as caught:
        await store.create_collection("models/c", request_id="r-1")
    assert caught.value.field == "request_id"
    with pytest.raises(NotFound):
        await store.get_collection("models/c")


async def test_only_one_of_many_creates_a_name(versions: VersionStore) -> None:
    made = await asyncio.gather(*(versions.create_collection(MODEL) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, AlreadyExists) for one in made) == 7


async def test_lists_are_by_name_and_of_one_kind(store: VersionStore) -> None:
    for name in ("models/c", "models/b", "datasets/z", "models/b_1"):
        await store.create_collection(name)
    await store.create_collection("models/job-1", training_job="trainingJobs/job-1")

    async def names(after: str = "", limit: int = 9, **more: bool) -> list[str]:
        return [one.name for one in await store.list_collections("models/", after=after, limit=limit, **more)]

    assert await names(include_training_jobs=False) == ["models/a", "models/b", "models/b_1", "models/c"]
    assert await names(after="models/b", limit=2) == ["models/b_1", "models/c"]
    assert "models/job-1" in await names()


async def test_equal_content_is_the_same_version(store: VersionStore, clock: Clock) -> None:
    first = await store.create_version(MODEL, manifest("x"))
    clock.advance(60)
    again = await store.create_version(MODEL, manifest("x"))
    assert again == first
    assert (await store.get_collection(MODEL)).latest_version == 1
    await store.create_collection("models/b")
    elsewhere = await store.create_version("models/b", manifest("x"))
    assert (str(elsewhere.name), elsewhere.digest) == ("models/b/versions/1", first.digest)


async def test_a_version_never_changes(store: VersionStore) -> None:
    made = await store.create_version(MODEL, manifest("x"))
    await store.create_version(MODEL, manifest("y"), set_aliases=["canary"])
    kept = await store.get_version(made.name)
    assert (kept.digest, kept.manifest, kept.create_time) == (made.digest, made.manifest, made.create_time)
    assert kept.manifest.digest == kept.digest


async def test_numbers_have_no_gaps_whoever_comes_first(store: VersionStore) -> None:
    contents = [f"{i % 12}" for i in range(24)]
    made = await asyncio.gather(*(store.create_version(MODEL, manifest(salt)) for salt in contents))
    assert {one.name.number for one in made} == set(range(1, 13))
    assert len({(one.name.number, one.digest) for one in made}) == 12
    listed = await store.list_versions(MODEL, before=0, limit=99)
    assert [one.name.number for one in listed] == list(range(12, 0, -1))


async def test_a_refused_version_uses_no_number(store: VersionStore) -> None:
    await store.create_version(MODEL, manifest("x"), fence=Fence("s", 2))
    with pytest.raises(FailedPrecondition):
        await store.create_version(MODEL, manifest("y"), fence=Fence("s", 1))
    assert (await store.create_version(MODEL, manifest("z"))).name.number == 2


@pytest.mark.parametrize(
    ("kind", "served"), [("base", True), ("adapter", True), ("merged", True), ("checkpoint", False)]
)
async def test_the_first_servable_version_becomes_the_default(store: VersionStore, kind: str, served: bool) -> None:
    first = await store.create_version(MODEL, manifest("x", kind=kind))
    second = await store.create_version(MODEL, manifest("y", kind=kind))
    assert first.aliases == (("default",) if served else ())
    assert second.aliases == ()
    assert (await store.get_collection(MODEL)).aliases == ({"default": 1} if served else {})


async def test_the_default_waits_for_what_can_be_served(store: VersionStore) -> None:
    await store.create_version(MODEL, manifest("x", kind="checkpoint"))
    assert (await store.create_version(MODEL, manifest("y"), set_aliases=["canary"])).aliases == ("canary", "default")


async def test_a_dataset_has_no_default(store: VersionStore) -> None:
    await store.create_collection("datasets/d")
    made = await store.create_version("datasets/d", manifest("x", kind="dataset"))
    assert made.aliases == ()
    assert (await store.resolve(Reference.parse("datasets/d"))).name.number == 1


async def test_every_reference_finds_its_version(store: VersionStore) -> None:
    one = await store.create_version(MODEL, manifest("x"))
    two = await store.create_version(MODEL, manifest("y"), set_aliases=["canary", "100"])
    for text, number in {
        "a": 1,
        "a@default": 1,
        "a@canary": 2,
        "a@100": 2,
        "a:2": 2,
        f"a@sha256:{one.digest}": 1,
        two.engine_name: 2,
        "models/a/versions/2": 2,
    }.items():
        assert await number_of(store, text) == number, text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("b", "models/b does not exist"),
        ("a@canary", "aliases: default"),
        ("a:9", "no version 9"),
        (f"a@sha256:{'0' * 64}", "no version with digest"),
        ("a--000000000000", "no version with digest"),
        ("datasets/a", "datasets/a does not exist"),
        ("empty", "aliases: none yet"),
    ],
)
async def test_what_is_missing_is_said(store: VersionStore, text: str, told: str) -> None:
    await store.create_version(MODEL, manifest("x"))
    await store.create_collection("models/empty")
    with pytest.raises(NotFound, match=told):
        await store.resolve(Reference.parse(text))


async def test_an_alias_moves_only_from_where_the_caller_saw_it(store: VersionStore) -> None:
    for salt in "xy":
        await store.create_version(MODEL, manifest(salt))
    with pytest.raises(Aborted) as caught:
        await store.set_alias(MODEL, "default", 2, expected=2)
    assert caught.value.metadata == {"current_version": "1"}
    with pytest.raises(Aborted, match="does not exist"):
        await store.set_alias(MODEL, "canary", 2, expected=1)
    with pytest.raises(Aborted):
        await store.set_alias(MODEL, "default", 2, expected=0)
    with pytest.raises(NotFound):
        await store.set_alias(MODEL, "default", 3, expected=1)
    assert (await store.get_collection(MODEL)).aliases == {"default": 1}
    assert (await store.set_alias(MODEL, "default", 2, expected=1)).version == 2
    assert (await store.set_alias(MODEL, "canary", 2, expected=0)).version == 2
    assert (await store.set_alias(MODEL, "default", 1, expected=None)).version == 1


async def test_one_of_twenty_movers_wins_each_round(store: VersionStore) -> None:
    for i in range(21):
        await store.create_version(MODEL, manifest(f"{i}"))
    seen = 1
    for _ in range(3):
        moves = await asyncio.gather(
            *(store.set_alias(MODEL, "default", number, expected=seen) for number in range(2, 22) if number != seen),
            return_exceptions=True,
        )
        won = [move for move in moves if not isinstance(move, BaseException)]
        assert len(won) == 1
        assert all(isinstance(move, Aborted) for move in moves if move not in won)
        seen = won[0].version
        assert (await store.get_collection(MODEL)).aliases == {"default": seen}


async def test_a_lower_epoch_publishes_nothing_in_its_scope(store: VersionStore) -> None:
    await store.create_version(MODEL, manifest("x"), fence=Fence("jobs/1", 2))
    await store.create_version(MODEL, manifest("y"), fence=Fence("jobs/1", 2))
    await store.create_version(MODEL, manifest("z"), fence=Fence("jobs/1", 3))
    with pytest.raises(FailedPrecondition, match="lost its lease") as caught:
        await store.create_version(MODEL, manifest("w"), set_aliases=["default"], fence=Fence("jobs/1", 2))
    assert caught.value.reason == "LEASE_LOST"
    assert (await store.get_collection(MODEL)).aliases == {"default": 1}
    await store.create_version(MODEL, manifest("w"), fence=Fence("jobs/2", 1))


async def test_a_failed_registration_raises_no_epoch(store: VersionStore) -> None:
    with pytest.raises(NotFound):
        await store.create_version("models/none", manifest("x"), fence=Fence("jobs/1", 9))
    await store.create_version(MODEL, manifest("x"), fence=Fence("jobs/1", 1))


async def test_the_events_tell_the_whole_story(store: VersionStore) -> None:
    await store.create_collection("datasets/d")
    await store.create_version("datasets/d", manifest("x", kind="dataset"))
    await store.create_version(MODEL, manifest("x"))
    await store.create_version(MODEL, manifest("x"))
    await store.create_version(MODEL, manifest("y"), set_aliases=["canary"])
    await store.set_alias(MODEL, "default", 2, expected=1)
    await store.set_alias(MODEL, "default", 2, expected=2)
    events = await store.events_after(0)
    assert [(event.alias, event.version) for event in events] == [
        ("", 1),
        ("default", 1),
        ("", 2),
        ("canary", 2),
        ("default", 2),
    ]
    assert {event.model for event in events} == {MODEL}
    sequences = [event.sequence for event in events]
    assert sequences == sorted(set(sequences))
    assert await store.events_after(sequences[2]) == events[3:]
    assert await store.events_after(0, limit=2) == events[:2]
    assert await store.last_sequence() == sequences[-1]
    assert await store.events_after(sequences[-1] + 1000) == []


async def test_concurrent_writers_lose_no_event(store: VersionStore) -> None:
    await asyncio.gather(*(store.create_version(MODEL, manifest(f"{i}")) for i in range(10)))
    told = [event.version for event in await store.events_after(0) if not event.alias]
    assert sorted(told) == list(range(1, 11))


async def test_watchers_are_told_after_the_change_is_there(store: VersionStore) -> None:
    with store.notifier.subscribe(MODELS) as changes:
        await store.create_version(MODEL, manifest("x"))
        await asyncio.wait_for(changes.wait(60), 5)
        await store.set_alias(MODEL, "canary", 1, expected=0)
        await asyncio.wait_for(changes.wait(60), 5)


async def test_versions_page_from_the_newest(store: VersionStore) -> None:
    for i in range(5):
        await store.create_version(MODEL, manifest(f"{i}"))
    page = await store.list_versions(MODEL, before=4, limit=2)
    assert [one.name.number for one in page] == [3, 2]
    with pytest.raises(NotFound):
        await store.list_versions("models/none", before=0, limit=2)
    with pytest.raises(NotFound, match="no version 6"):
        await store.get_version(VersionName("models", "a", 6))


def checkpoint(step: int, *, job: str = "job-1") -> Manifest:
    return manifest(f"{job} {step}", lineage=Lineage(job=job, step=step))


async def test_the_default_of_a_job_never_goes_back_to_an_earlier_step(store: VersionStore) -> None:
    """Two conversions run at once, and the earlier step's may end later."""
    for step in (10, 30, 20):
        await store.create_version(MODEL, checkpoint(step), set_aliases=[str(step), "default"])
    assert (await store.get_collection(MODEL)).aliases == {"10": 1, "30": 2, "20": 3, "default": 2}
    await store.create_version(MODEL, checkpoint(5, job="job-2"), set_aliases=["default"])
    assert (await store.get_collection(MODEL)).aliases["default"] == 4
    await store.set_alias(MODEL, "default", 1, expected=4)  # by hand it goes where it is told
    assert (await store.get_collection(MODEL)).aliases["default"] == 1


async def test_a_digest_is_found_in_whatever_collection(store: VersionStore) -> None:
    made = await store.create_version(MODEL, manifest("x"))
    assert await store.find_digest(made.digest) == made
    assert await store.find_digest("0" * 64) is None


async def test_events_are_numbered_in_the_order_of_their_commits(store: VersionStore) -> None:
    for salt in "abc":
        await store.create_version(MODEL, manifest(salt))
    sequences = [event.sequence for event in await store.events_after(0)]
    assert sequences == list(range(1, len(sequences) + 1))
    assert await store.last_sequence() == sequences[-1]


async def test_aliases_of_a_crowded_model_are_told_briefly(store: VersionStore) -> None:
    await store.create_version(MODEL, manifest("x"), set_aliases=[f"a{n}" for n in range(30)])
    with pytest.raises(NotFound) as caught:
        await store.resolve(Reference.parse("a@nope"))
    assert caught.value.message.count(", ") == 19
