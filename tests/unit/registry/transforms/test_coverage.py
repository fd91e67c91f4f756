from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tuneloom_registry.weights import coverage
from tuneloom_registry.weights.headers import TensorSlice

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"
shapes = st.sampled_from([(), (4,), (8,), (4, 8), (8, 4), (2, 2, 2)])
models = st.dictionaries(st.sampled_from("abcdefgh"), shapes, max_size=8)


def slices(shapes: dict[str, tuple[int, ...]], dtype: str = "F32") -> dict[str, TensorSlice]:
    """Each tensor in a file of its own."""
    return {name: TensorSlice(name, Path(f"{name}.safetensors"), dtype, shape, 0, 0) for name, shape in shapes.items()}


@given(stored=models, trained=models)
def test_every_tensor_has_one_origin_and_every_trained_one_a_place(
    stored: dict[str, tuple[int, ...]], trained: dict[str, tuple[int, ...]]
) -> None:
    found = coverage.of(slices(stored), slices(trained))
    origins = [stored.keys() & trained.keys(), found.renamed.keys(), found.perhaps_tied.keys(), set(found.buffers)]
    assert sum(len(names) for names in origins) == len(stored)
    assert set().union(*origins) == stored.keys()
    places = [stored.keys() & trained.keys(), set(found.renamed.values()), set(found.left_over)]
    assert sum(len(names) for names in places) == len(trained)
    assert set().union(*places) == trained.keys()
    assert all(stored[name] == trained[other] for name, other in found.renamed.items())
    assert all(f"{name}.safetensors" in found.base_files for name in (*found.buffers, *found.perhaps_tied))


def test_nothing_of_the_base_is_needed_when_all_was_trained() -> None:
    shapes = {EMBEDDINGS: (8, 4), "model.norm.weight": (4,)}
    assert coverage.of(slices(shapes), slices(shapes)) == coverage.Coverage({}, {}, (), (), frozenset())


def test_a_head_beside_its_embeddings_may_be_tied_to_them() -> None:
    found = coverage.of(slices({EMBEDDINGS: (8, 4), HEAD: (8, 4)}), slices({EMBEDDINGS: (8, 4)}))
    assert found.perhaps_tied == {HEAD: (EMBEDDINGS,)}
    assert found.base_files == {f"{HEAD}.safetensors", f"{EMBEDDINGS}.safetensors"}


def test_a_head_without_its_embeddings_is_the_embeddings() -> None:
    found = coverage.of(slices({HEAD: (8, 4)}), slices({EMBEDDINGS: (8, 4)}))
    assert (found.renamed, found.left_over, found.base_files) == ({HEAD: EMBEDDINGS}, (), frozenset())


def test_what_could_be_either_is_neither() -> None:
    found = coverage.of(slices({"a": (8, 4), "b": (8, 4)}), slices({"c": (8, 4)}))
    assert (found.renamed, found.left_over) == ({}, ("c",))


def test_integers_and_vectors_are_never_tied() -> None:
    trained = slices({"bias": (4,), "w": (2, 2)})
    found = coverage.of(trained | slices({"running_mean": (4,)}) | slices({"positions": (2, 2)}, "I64"), trained)
    assert found.perhaps_tied == {}
    assert found.buffers == ("running_mean", "positions")
