"""Perplexity and IFD of a pool's texts from a language model beside the one in training."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.models.auto import modeling_auto

from ..models import model_fingerprint, one_line_errors, read_language_scores, text_fingerprint, tokenizer_fingerprint
from .signal_cache import SignalCache, signal_key
from .signal_reader import Signals


_KINDS: tuple[tuple[dict[str, Any], Any], ...] = (
    (modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, AutoModelForSeq2SeqLM),
    (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, AutoModelForCausalLM),
    (modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, AutoModelForMaskedLM),
)


def load_language_model(source: str) -> tuple[nn.Module, Any]:
    """The causal, masked or seq2seq LM at `source`, a folder or hub id, by the architecture it was saved with.

    Raises:
        ValueError: it cannot be loaded, or is no language model.
    """
    with one_line_errors(f"`scoring_model` {source} could not be loaded"):
        config = AutoConfig.from_pretrained(source)
        tokenizer = AutoTokenizer.from_pretrained(source)
        saved = (getattr(config, "architectures", None) or [""])[0]
        if saved.endswith("ForPreTraining"):  # BERT: masked language modelling, and a task beside it
            saved = saved.removesuffix("ForPreTraining") + "ForMaskedLM"
        for names, auto in _KINDS:
            if saved in names.values():
                return auto.from_pretrained(source), tokenizer
    raise ValueError(
        f"`scoring_model` {source} was saved as {saved or 'no known architecture'}: give a causal, masked or seq2seq "
        "language model"
    )


class TextScorer:
    """Reads `perplexity` and `ifd` of texts, a shard at a time where there is a cache.

    Args:
        model, tokenizer: of the language model.
        cache: where what it says is kept, None to keep nothing.
        process_index, num_processes: as for `read_language_scores`.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        cache: SignalCache | None = None,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.model, self.tokenizer, self.cache = model, tokenizer, cache
        self._process_index, self._num_processes = process_index, num_processes

    def read(
        self, names: Collection[str], texts: Sequence[str], answers: Sequence[str] | None, progress: Any = None
    ) -> Signals:
        """`names` out of `perplexity` and `ifd`; all processes call it, process 0 gets the arrays."""
        found: Signals = {}
        first = self._process_index == 0
        for name in sorted(names):

            def compute(rows: NDArray[np.int64], name: str = name) -> NDArray[Any]:
                read = read_language_scores(
                    self.model,
                    self.tokenizer,
                    [texts[i] for i in rows.tolist()],
                    {name},
                    answers=None if answers is None else [answers[i] for i in rows.tolist()],
                    process_index=self._process_index,
                    num_processes=self._num_processes,
                )
                return read.get(name, np.empty(0))

            if self.cache is None:
                values: Any = compute(np.arange(len(texts)))
            else:
                values = self.cache.fetch(
                    self._key(name, texts, answers) if first else "",
                    len(texts),
                    compute,
                    process_index=self._process_index,
                    num_processes=self._num_processes,
                    progress=progress,
                )
            if first:
                found[name] = values
        return found

    def _key(self, name: str, texts: Iterable[str], answers: Iterable[str] | None) -> str:
        columns = [list(texts), None if answers is None else list(answers)]
        return signal_key(
            name,
            model=model_fingerprint(self.model),
            tokenizer=tokenizer_fingerprint(self.tokenizer),
            texts=text_fingerprint(*columns),
        )
