"""The models that a pool is read with: the one in training, a committee, a language model; and what is kept."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import Subset
from transformers.integrations import is_deepspeed_zero3_enabled

from ..models import LANGUAGE_SIGNALS, backbone, model_fingerprint, plain_model
from ..selection import Strategy
from .pool_data import PoolData
from .signal_cache import SignalCache, signal_key
from .signal_reader import SignalReader, Signals
from .text_scorer import TextScorer, load_language_model


class ReadsPools(Protocol):
    """What `SignalSources` asks of a trainer."""

    model: Any
    args: Any
    pool: PoolData
    strategy: Strategy
    is_fsdp_enabled: bool

    def signals(self, dataset: Any, needs: Collection[str]) -> Signals: ...

    def read_with(self, model: nn.Module, dataset: Any, needs: Collection[str]) -> Signals: ...

    def progress(self, batches: Iterable[Any], total: int) -> Iterable[Any]: ...


class SignalSources:
    """The models that `trainer` reads its pool with.

    Args:
        trainer: whose arguments say what is read of what, and whether it is kept in `signal_cache`.
        scoring_model: a name, or a language model and its tokenizer; loaded only for a strategy that asks it anything.
        committee: classifiers beside the one in training.

    Raises:
        ValueError: the labels of a member are others than the model's, the scoring model cannot be loaded, or the pool
            has no texts or answers for it.
    """

    def __init__(
        self,
        trainer: ReadsPools,
        scoring_model: str | tuple[nn.Module, Any] | None = None,
        committee: Sequence[nn.Module] = (),
    ) -> None:
        self._trainer, self._pool = trainer, trainer.pool
        self.committee = _checked_committee(committee, trainer.model)
        folder = trainer.args.signal_cache
        self._cache = None if folder is None else SignalCache(folder)
        asked = scoring_model is not None and bool(trainer.strategy.needs & LANGUAGE_SIGNALS)
        self._scorer = self._make_scorer(scoring_model) if asked else None

    @property
    def scored_by(self) -> str | None:
        """The class of the language model, None without one."""
        return type(self._scorer.model).__name__ if self._scorer else None

    def reader(self) -> SignalReader:
        """Reads these models, with the arguments as they are now."""
        args = self._trainer.args
        return SignalReader(
            self._read_pool,
            classes=lambda: int(plain_model(self._trainer.model).config.num_labels or 0),
            proxy=args.proxy,
            el2n_proxies=args.el2n_proxies,
            seed=args.seed,
            read_committee=self._read_committee if self.committee else None,
            read_text=self._read_text if self._scorer else None,
        )

    @property
    def _place(self) -> tuple[int, int]:
        return self._trainer.args.process_index, self._trainer.args.world_size

    # The model in training

    def _read_pool(self, names: Collection[str]) -> Signals:
        trainer = self._trainer
        sharded = is_deepspeed_zero3_enabled() or trainer.is_fsdp_enabled  # then no process has the whole to hash
        if self._cache is None or trainer.args.proxy is None or sharded:
            return trainer.signals(self._pool.dataset, names)
        return self._cached_embeddings(self._cache)

    def _cached_embeddings(self, cache: SignalCache) -> Signals:
        """Kept by the backbone's weights (the head has no part in embeddings), all rows, and what rounds them."""
        args, (process_index, num_processes) = self._trainer.args, self._place
        settings = {"bf16": args.bf16, "fp16": args.fp16, "device": args.device.type, "batch": args.eval_batch_size}
        key = ""
        if process_index == 0:
            weights = model_fingerprint(backbone(self._trainer.model))
            rows = self._pool.fingerprint(len(self._pool))
            key = signal_key("embeddings", model=weights, rows=rows, **settings)

        def compute(numbers: NDArray[np.int64]) -> NDArray[Any]:
            rows = self._pool.dataset
            part = rows.select(numbers) if isinstance(rows, Dataset) else Subset(rows, numbers.tolist())
            return self._trainer.signals(part, {"embeddings"}).get("embeddings", np.empty((0, 0)))

        found = cache.fetch(key, len(self._pool), compute, process_index=process_index, num_processes=num_processes)
        return {} if found is None else {"embeddings": found}

    # Models beside it

    def _read_committee(self, names: Collection[str]) -> Signals:
        trainer = self._trainer
        members = [
            trainer.read_with(member.to(trainer.args.device), self._pool.dataset, {"probabilities"})
            for member in self.committee
        ]
        return {"committee_probabilities": np.stack([m["probabilities"] for m in members])} if members[0] else {}

    def _read_text(self, names: Collection[str]) -> Signals:
        assert self._scorer is not None
        texts = self._pool.column(self._trainer.args.pool_text_column)
        return self._scorer.read(names, texts, self._answers(), progress=self._trainer.progress)

    def _make_scorer(self, given: Any) -> TextScorer:
        model, tokenizer = load_language_model(given) if isinstance(given, str) else given
        self._pool.check({"texts"}, f"{type(self._trainer.strategy).__name__} with a `scoring_model`", {"texts"})
        if "ifd" in self._trainer.strategy.needs and self._answers() is None:
            raise ValueError(
                "`ifd` compares answers: give `pool_answer_column`, or rows with one class index in a column `label` "
                f"or `labels`; `train_dataset` has {self._pool.columns}"
            )
        return TextScorer(model.to(self._trainer.args.device), tokenizer, self._cache, *self._place)

    def _answers(self) -> list[str] | None:
        """What is to be answered to each text: a column, or the name of the label."""
        column = self._trainer.args.pool_answer_column
        if column is not None:
            return list(self._pool.column(column))
        if (labels := self._pool.labels()) is None:
            return None
        names = plain_model(self._trainer.model).config.id2label or {}
        return [str(names.get(label, label)) for label in labels.tolist()]


def _checked_committee(committee: Sequence[nn.Module], model: nn.Module) -> list[nn.Module]:
    for number, member in enumerate(committee):
        ours, theirs = (dict(plain_model(m).config.id2label or {}) for m in (model, member))
        if ours != theirs:
            raise ValueError(
                f"member {number} of `committee` has the labels {theirs}, the model has {ours}: give all the same "
                "`id2label`, in the same order"
            )
    return list(committee)
