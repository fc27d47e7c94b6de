"""`proxy="linear"`: one pass for embeddings, all rounds before the first step, only labels of chosen rows read."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
import torch

from tithe.models import LinearProbe, out_of_fold_el2n
from tithe.selection import Selection, get_strategy
from tithe.trainers import RoundSelectionTrainer
from tithe.trainers.signal_reader import SignalReader


ROWS, CLASSES = 60, 3
EVERYTHING = {"probabilities", "head_inputs", "mc_probabilities", "committee_probabilities", "el2n", "embeddings"}


def embeddings():
    rng = np.random.default_rng(0)
    return (np.eye(CLASSES, 6)[np.arange(ROWS) % CLASSES] + 0.4 * rng.standard_normal((ROWS, 6))).astype(np.float32)


LABELS = np.arange(ROWS) % CLASSES


class Model:
    """Counts what is read of it."""

    def __init__(self, **arrays):
        self.passes, self.arrays = [], {"embeddings": embeddings(), **arrays}

    def __call__(self, names):
        self.passes.append(set(names))
        return {name: self.arrays[name] for name in names}


def complete(reader, needs, number=1, labels=LABELS):
    return reader.complete(needs, reader.read(needs), labels, np.arange(20), number)


def test_a_probe_gives_what_a_head_would():
    reader = SignalReader(Model(), lambda: CLASSES, proxy="linear", el2n_proxies=2)
    found = complete(reader, EVERYTHING)
    assert set(found) == EVERYTHING
    chosen = LinearProbe(CLASSES).fit(embeddings()[:20], LABELS[:20]).probabilities(embeddings())
    np.testing.assert_array_equal(found["probabilities"], chosen)
    np.testing.assert_allclose(np.linalg.norm(found["head_inputs"], axis=1), 1, rtol=1e-5)
    assert found["mc_probabilities"].shape == found["committee_probabilities"].shape == (10, ROWS, CLASSES)
    expected = out_of_fold_el2n(embeddings(), LABELS, CLASSES, 2, np.random.default_rng(0))
    for number in (0, 3):  # the embeddings do not change from round to round
        np.testing.assert_array_equal(complete(reader, {"el2n"}, number)["el2n"], expected)


def test_the_model_is_read_once_and_for_embeddings_only():
    model = Model()
    reader = SignalReader(model, lambda: CLASSES, proxy="linear")
    for number in range(4):
        complete(reader, {"probabilities", "selected_embeddings", "texts"}, number=number)
    assert model.passes == [{"embeddings"}]


def test_a_strategy_that_reads_no_model_costs_no_pass():
    model = Model()
    assert complete(SignalReader(model, lambda: CLASSES, proxy="linear"), {"texts", "labels"}) == {}
    assert model.passes == []


def test_labels_of_rows_that_are_not_chosen_do_not_reach_a_probe():
    poisoned = LABELS.copy()
    poisoned[20:] = (poisoned[20:] + 1) % CLASSES
    needs = EVERYTHING - {"el2n"}
    first, second = (
        complete(SignalReader(Model(), lambda: CLASSES, proxy="linear"), needs, labels=labels)
        for labels in (LABELS, poisoned)
    )
    for name in needs:
        np.testing.assert_array_equal(first[name], second[name])


def test_without_a_proxy_the_model_is_read_every_round():
    model = Model(probabilities=np.full((ROWS, CLASSES), 1 / CLASSES, dtype=np.float32))
    reader = SignalReader(model, lambda: CLASSES, el2n_proxies=3)
    for number in range(2):
        complete(reader, {"probabilities"}, number=number)
        complete(reader, {"el2n"}, number=number)
    assert model.passes == [{"probabilities"}, {"embeddings"}] * 2


def test_models_beside_are_read_once_and_need_no_training():
    committee = Model(committee_probabilities=np.zeros((2, ROWS, CLASSES), dtype=np.float32))
    text = Model(perplexity=np.arange(ROWS, dtype=np.float32))
    reader = SignalReader(Model(), lambda: CLASSES, read_committee=committee, read_text=text)
    needs = {"committee_probabilities", "perplexity"}
    for number in range(2):
        found = complete(reader, needs, number=number)
    assert committee.passes == [{"committee_probabilities"}] and text.passes == [{"perplexity"}]
    assert found["perplexity"][3] == 3 and not reader.untrained(needs)
    assert SignalReader(Model(), lambda: CLASSES).untrained(needs) == needs


def test_all_rounds_are_chosen_before_the_first_step(make_trainer):
    trainer = make_trainer(strategy="entropy_diversity", proxy="linear", rounds=6, num_train_epochs=2, seed=3)
    trainer.train()
    rows = trainer.ledger.rows
    assert [row["size"] for row in rows] == [4, 8, 12, 16, 20, 24]
    assert {row["step"] for row in rows} == {0} and {row["epoch"] for row in rows} == {0}
    assert rows[0]["strategy"].startswith("Random") and rows[1]["strategy"].startswith("EntropyDiversity")
    assert trainer.state.global_step == 12


def test_the_rounds_are_those_of_a_probe_on_the_untrained_model(make_trainer):
    """Played through by hand, round by round."""
    trainer = make_trainer(strategy="entropy_diversity", proxy="linear", rounds=3)
    rows = trainer.signals(trainer.train_dataset, {"embeddings"})["embeddings"]
    labels, strategy = np.array(trainer.train_dataset["label"]), get_strategy("entropy_diversity")
    trainer.train()
    selected = trainer.ledger.indices[0]
    for number in (1, 2):
        fitted = np.sort(selected)
        probabilities = LinearProbe(3).fit(rows[fitted], labels[fitted]).probabilities(rows)
        pool = trainer.pool.candidates({"embeddings": rows, "probabilities": probabilities}, strategy.needs, selected)
        chosen = strategy.select(pool, 8, np.random.default_rng((trainer.args.seed, number)))
        assert chosen.indices.tolist() == trainer.ledger.indices[number].tolist()
        selected = np.concatenate([selected, chosen.indices])


def test_selecting_by_proxy_does_not_touch_training(make_trainer):
    """The same rows, chosen by a proxy or told beforehand, train the same model."""
    first = make_trainer(strategy="entropy_diversity", proxy="linear", rounds=3)
    first.train()
    chosen = first.ledger.selected

    class Told:
        needs = frozenset()

        def select(self, pool, k, rng):
            return Selection(indices=chosen, scores=np.zeros(len(pool.ids)))

    second = make_trainer(strategy=Told(), rounds=1)
    second.train()
    for (name, one), (_, other) in zip(first.model.named_parameters(), second.model.named_parameters(), strict=True):
        assert one.equal(other), name


def test_rounds_default_to_twenty_and_are_bound_by_the_budget(make_trainer):
    assert make_trainer(proxy="linear", strategy="random")._rounds == 20
    assert make_trainer(proxy="linear", strategy="random", budget=7)._rounds == 7
    with pytest.raises(ValueError, match="`rounds` is 30, but the budget is 24 rows"):
        make_trainer(proxy="linear", strategy="random", rounds=30)


def test_what_a_proxy_cannot_do_is_refused_before_training(make_trainer, make_pool):
    with pytest.raises(ValueError, match="`proxy` must be `linear` or `None`, got 'quadratic'"):
        make_trainer(proxy="quadratic")
    with pytest.raises(ValueError, match="needs one class index per row"):
        make_trainer(proxy="linear", pool=make_pool().remove_columns("label"))
    with pytest.raises(ValueError, match="leaves a `proxy` no rows to learn from"):
        make_trainer(proxy="linear", initial_strategy="none")
    make_trainer(proxy="linear", strategy="k_center", pool=make_pool().remove_columns("label"))


@dataclass(frozen=True)
class Disagreeing:
    """The rows that a committee agrees on least; notes what it was given."""

    given: list = field(default_factory=list)
    needs: ClassVar[frozenset[str]] = frozenset({"committee_probabilities"})

    def select(self, pool, k, rng):
        self.given.append(pool.committee_probabilities)
        scores = pool.committee_probabilities.std(axis=0).sum(axis=1)
        return Selection(pool.ids[np.lexsort((pool.ids, -scores))[:k]], scores)


def test_a_committee_is_read_before_anything_is_trained(make_trainer, make_model):
    members, strategy = [make_model(seed) for seed in (1, 2, 3)], Disagreeing()
    trainer = make_trainer(strategy=strategy, trainer={"committee": members})
    expected = [trainer.read_with(m, trainer.train_dataset, {"probabilities"})["probabilities"] for m in members]
    trainer.train()
    np.testing.assert_array_equal(strategy.given[0], np.stack(expected))
    assert trainer.ledger.rows[0]["strategy"].startswith("Disagreeing")
    left = np.setdiff1d(np.arange(60), trainer.ledger.indices[0])
    np.testing.assert_array_equal(strategy.given[1], np.stack(expected)[:, left])


def test_a_committee_must_exist_and_have_the_same_labels(make_trainer, make_model):
    with pytest.raises(ValueError, match="needs .'committee_probabilities'., which this trainer does not read"):
        make_trainer(strategy=Disagreeing())
    with pytest.raises(ValueError, match="member 1 of `committee` has the labels"):
        make_trainer(trainer={"committee": [make_model(), make_model(num_labels=4)]})


@pytest.mark.parametrize("as_list", [False, True])
def test_embeddings_are_found_again_by_runs_of_the_same_backbone(
    make_trainer, make_pool, tmp_path, as_list, monkeypatch
):
    pool = list(make_pool()) if as_list else make_pool()
    options = {"strategy": "entropy_diversity", "proxy": "linear", "rounds": 3}
    plain = make_trainer(pool=pool, **options)
    plain.train()
    read = []
    original = RoundSelectionTrainer.signals
    monkeypatch.setattr(
        RoundSelectionTrainer, "signals", lambda self, rows, needs: read.append(needs) or original(self, rows, needs)
    )
    for count in (1, 1):  # the second run finds what the first has read
        cached = make_trainer(pool=pool, signal_cache=str(tmp_path / "cache"), **options)
        cached.train()
        assert len(read) == count and cached.ledger.selected.tolist() == plain.ledger.selected.tolist()


def test_embeddings_of_another_backbone_or_pool_are_not_taken(make_trainer, make_model, make_pool, tmp_path):
    def radius(**options):
        settings = {"strategy": "k_center", "proxy": "linear", "rounds": 1, "signal_cache": str(tmp_path / "cache")}
        trainer = make_trainer(**settings, **options)
        trainer.train()
        return trainer.ledger.rows[0]["coverage_radius"]

    first = radius()
    assert radius(model=make_model(seed=9)) != first != radius(pool=make_pool(seed=3))
    head = make_model()
    torch.nn.init.ones_(head.classifier.weight)
    radius(model=head)
    assert radius() == first and len(list((tmp_path / "cache").glob("*.npy"))) == 3


@pytest.mark.parametrize(
    ("strategy", "first"),
    [
        ("margin_coverage", "FacilityLocation(neighbours=64)"),
        ("margin", "Random(stratified=False)"),
        (
            "balanced:margin_coverage",
            "Balanced(strategy=FacilityLocation(neighbours=64), by='labels', shares='equal')",
        ),
        ("noisy:margin", "Noisy(strategy=Random(stratified=False), temperature=0.25)"),
    ],
)
def test_the_first_round_is_what_the_strategy_asks_for(make_trainer, strategy, first):
    trainer = make_trainer(strategy=strategy, proxy="linear", rounds=2)
    trainer.train()
    assert trainer.ledger.rows[0]["strategy"] == first
    assert trainer.ledger.rows[1]["strategy"] != first and len(trainer.ledger.selected) == 24


def test_a_wrapper_that_reads_predictions_waits_for_them(make_trainer):
    balanced = get_strategy("balanced:margin", balanced={"by": "predicted"})
    trainer = make_trainer(strategy=balanced, proxy="linear", rounds=2)
    trainer.train()
    assert [row["strategy"].partition("(")[0] for row in trainer.ledger.rows] == ["Random", "Balanced"]
