import numpy as np
import pytest

from tithe.selection import Pool, Selection, Strategy, check_request


SHAPES = {
    "embeddings": (4, 3),
    "probabilities": (4, 2),
    "mc_probabilities": (5, 4, 2),
    "committee_probabilities": (6, 4, 2),
    "el2n": (4,),
    "perplexity": (4,),
    "ifd": (4,),
    "head_inputs": (4, 7),
}
IDS = [30, 10, 40, 20]


@pytest.mark.parametrize("name", SHAPES)
def test_a_signal_of_the_wrong_length_is_refused(name):
    shape = tuple(3 if size == 4 else size for size in SHAPES[name])
    with pytest.raises(ValueError, match=rf"`{name}` has 3 rows.*4 `ids`"):
        Pool(ids=IDS, **{name: np.zeros(shape)})


@pytest.mark.parametrize("name", SHAPES)
def test_a_signal_of_the_wrong_number_of_dimensions_is_refused(name):
    with pytest.raises(ValueError, match=rf"`{name}` must have {len(SHAPES[name])} dimension"):
        Pool(ids=IDS, **{name: np.zeros((*SHAPES[name], 1))})


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_signal_that_is_not_finite_is_refused_by_name_count_and_id(name, bad):
    signal = np.zeros(SHAPES[name], dtype=np.float32)
    axis = 1 if signal.ndim == 3 else 0
    np.moveaxis(signal, axis, 0)[[2, 3]] = bad
    with pytest.raises(ValueError, match=rf"`{name}` is not finite in 2 of 4 rows \(first id: 40\)"):
        Pool(ids=IDS, **{name: signal})


def test_rows_that_are_not_finite_are_found_beyond_the_first_block():
    embeddings = np.zeros((3000, 1000), dtype=np.float32)
    embeddings[2500, 999] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3000 rows \(first id: 2500\)"):
        Pool(ids=np.arange(3000), embeddings=embeddings)


def test_selected_embeddings_are_checked_against_selected_and_embeddings():
    with pytest.raises(ValueError, match="`selected_embeddings` has 1 rows.*2 `selected`"):
        Pool(ids=IDS, selected=[1, 2], selected_embeddings=np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"`selected_embeddings` is not finite in 1 of 2 rows \(first id: 2\)"):
        Pool(ids=IDS, selected=[1, 2], selected_embeddings=[[0.0], [np.nan]])
    with pytest.raises(ValueError, match="`selected_embeddings` has 2 dimensions, but `embeddings` has 3"):
        Pool(ids=IDS, selected=[1], embeddings=np.zeros((4, 3)), selected_embeddings=np.zeros((1, 2)))


@pytest.mark.parametrize("field", ["texts", "labels"])
def test_texts_and_labels_must_align(field):
    with pytest.raises(ValueError, match=f"`{field}` has 3 rows, but the pool has 4"):
        Pool(ids=IDS, **{field: ["a", "b", "c"]})


def test_float_labels_must_be_finite_and_string_labels_are_kept():
    with pytest.raises(ValueError, match="`labels` is not finite in 1 of 4"):
        Pool(ids=IDS, labels=[0.0, np.nan, 1.0, 2.0])
    assert Pool(ids=IDS, labels=["x", "y", "x", "y"]).labels.tolist() == ["x", "y", "x", "y"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ids": [1, 2, 1]}, r"`ids` must be unique: 1 are repeated \(first: 1\)"),
        ({"ids": [1, 2], "selected": [3, 3]}, "`selected` must be unique"),
        ({"ids": [1, 2], "selected": [2, 5]}, r"1 of the pool's `ids` are already in `selected` \(first: 2\)"),
        ({"ids": [0.5, 1.5]}, "`ids` must be dataset indices"),
        ({"ids": [[1], [2]]}, "`ids` must have one dimension"),
        ({"ids": [1, 2], "el2n": ["a", "b"]}, "`el2n` must be numeric"),
    ],
)
def test_impossible_pools_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Pool(**fields)


def test_a_memory_mapped_array_is_not_copied(tmp_path):
    path = tmp_path / "embeddings.npy"
    np.save(path, np.arange(12, dtype=np.float32).reshape(4, 3))
    mapped = np.load(path, mmap_mode="r")
    assert np.shares_memory(Pool(ids=IDS, embeddings=mapped).embeddings, mapped)


@pytest.mark.parametrize("k", [0, -1, 5, 2.0, True, None])
def test_check_request_refuses_an_impossible_k(k):
    with pytest.raises(ValueError, match=r"`mine` was asked for k=.* from a pool of 4 candidates.*from 1 to 4"):
        check_request("mine", Pool(ids=IDS), k, frozenset())


def test_check_request_names_the_missing_field_and_what_was_found():
    pool = Pool(ids=IDS, el2n=np.zeros(4))
    with pytest.raises(ValueError, match=r"`mine` needs `ifd`, but the pool only has `ids`, `selected`, `el2n`"):
        check_request("mine", pool, 1, frozenset({"ifd", "el2n"}))
    with pytest.raises(ValueError, match="`embedings`, which is not a field.*`embeddings`"):
        check_request("mine", pool, 1, frozenset({"embedings"}))


def test_selected_embeddings_are_needed_only_once_rows_are_selected():
    needs = frozenset({"selected_embeddings"})
    check_request("mine", Pool(ids=IDS), 1, needs)
    with pytest.raises(ValueError, match="needs `selected_embeddings`"):
        check_request("mine", Pool(ids=IDS, selected=[9]), 1, needs)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"indices": [1, 1], "scores": [0.0, 1.0]}, "`indices` must be unique"),
        ({"indices": [1], "scores": [[0.0]]}, "`scores` must have one dimension"),
        ({"indices": [1], "scores": [0.0, 1.0], "columns": {"bin": [0]}}, "Column `bin`.*one row per candidate"),
    ],
)
def test_impossible_selections_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Selection(**fields)


def test_the_strategy_protocol_asks_for_needs_and_select():
    class Whole:
        needs = frozenset({"texts"})

        def select(self, pool, k, rng):
            return Selection(pool.ids[:k], np.zeros(len(pool)))

    class Needless:
        select = Whole.select

    assert isinstance(Whole(), Strategy)
    assert not isinstance(Needless(), Strategy)
