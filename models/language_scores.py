"""`perplexity` and `ifd`: what a language model, or failing that the classifier itself, says of each text.

The likelihoods are exact: masked models are asked one mask at a time, padding and special tokens never count, and a
score does not depend on what else is in its batch. The pass leaves no trace, as in `read_signals`.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerBase

from .language_models import Kind, PositionLogits, language_model_kind, longest_input
from .language_tokens import Sequences, Tokens
from .passes import evaluating, rng_neutral
from .structure import plain_model


LANGUAGE_SIGNALS = frozenset({"perplexity", "ifd"})
"""The signals that `read_language_scores` can read."""

LOSS_FLOOR = 0.01
"""In nats a token: the least denominator of `ifd`. An answer of probability 0.99 by itself teaches nothing, and below
it the ratio is noise divided by nearly nothing."""

# On a CPU what stays near its caches is fastest: 1,024 tokens and 16 MiB of logits took 0.6 of the time of 8,192
# tokens and 64 MiB (14M parameters, vocabulary 32,000). Elsewhere few and large products are: 256 MiB.
_CPU_BATCH_TOKENS, _BATCH_TOKENS = 1024, 16384
_CPU_LOGITS, _LOGITS = 2**22, 2**26
_SENT_AT_A_TIME = 2**22
_LEAST_PROBABILITY = 1e-12

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def read_language_scores(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    needs: Collection[str],
    *,
    answers: Sequence[str] | None = None,
    separator: str = "\n",
    batch_tokens: int | None = None,
    max_length: int | None = None,
    process_index: int = 0,
    num_processes: int = 1,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Read the signals `needs` of every text from a frozen language model, without gradient.

    `perplexity` (n): mean negative log-likelihood in nats per token of the text, *not* its exponential (2405.20541).
    A causal LM predicts every token from those before it, the first from the tokenizer's BOS token where it has one;
    where it has none the first token is context only. A masked LM predicts every token from all others, one mask at a
    time (pseudo-log-likelihood, Salazar et al., 1910.14659): as many forward passes as tokens. A seq2seq LM predicts
    the answer from the text as source. A text without any token to predict (empty, or a single token without BOS) has
    the loss of a uniform guess, log of the vocabulary's size.

    `ifd` (n): loss(answer | prompt) / loss(answer), each the mean over the answer's tokens (2308.12032; its authors
    drop what is above 1, and keep the highest of the rest). The prompt is `texts`; the answer's tokens are those of
    the joined text that reach into the answer, by offsets, and the very same tokens are scored alone. For a seq2seq
    LM "alone" is an empty source. The denominator is at least `LOSS_FLOOR`. Few tokens decide: one-word answers,
    such as names of classes, give few distinct denominators, so rank within a class.

    Too long texts lose their end. Where prompt and answer together are too long, the prompt loses its beginning, down
    to half of the room, then the answer its end. Special tokens are context and never count, the EOS of a target too.

    Cost: one forward pass per distinct sequence (for a masked LM, per token). Memory beyond the body's own: 16 MiB of
    logits in float32 on a CPU, 256 MiB elsewhere, and what computing with them takes, whatever the vocabulary.

    Args:
        model: causal, masked or seq2seq LM, told apart by its class; whole on every process.
        tokenizer: of the model; for `ifd` from a causal or masked LM a fast one.
        texts: the texts or prompts, n.
        needs: names out of `LANGUAGE_SIGNALS`.
        answers: n answers, for `ifd` and for a seq2seq LM; for classification the name of the row's label.
        separator: stands between prompt and answer for causal and masked LMs.
        batch_tokens: tokens a batch, padding among them; one sequence may exceed it. By default 1,024 on a CPU,
            16,384 elsewhere.
        max_length: tokens a sequence, below what the model and the tokenizer allow.
        process_index: this process's number, of `num_processes` that all call this with equal arguments.
        num_processes: 2 and more need an initialised `torch.distributed`.
        progress: wraps an iterable of known length, for a progress bar.

    Returns:
        One float32 array per name, in the order of `texts`; on process 0 only, empty elsewhere.

    Raises:
        ValueError: a name is unknown; the model is no language model, or a bidirectional one behind a causal head;
            `answers` are missing, of another number, or one has no token.
    """
    needs = frozenset(needs)
    kind = language_model_kind(model)
    _check(needs, kind, texts, answers)
    if not needs or not len(texts):
        return {}
    inner = plain_model(model)
    config = inner.config
    blank = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.pad_token_id or 0
    tokens = Tokens(kind, tokenizer, longest_input(model, tokenizer, max_length), blank)
    numbers: dict[str, NDArray[np.int64]] = {}
    if "perplexity" in needs:
        numbers["perplexity"] = tokens.targets(texts, answers or []) if kind == "seq2seq" else tokens.texts(texts)
    if "ifd" in needs:
        numbers["given"], numbers["alone"] = tokens.answers(texts, answers or [], separator)
    scorer = _Scorer(model, kind, tokenizer, tokens.sequences)
    with rng_neutral(), evaluating(model), torch.no_grad():
        budget = batch_tokens or (_CPU_BATCH_TOKENS if inner.device.type == "cpu" else _BATCH_TOKENS)
        losses = scorer.losses(budget, process_index, num_processes, progress)
    if process_index:
        return {}
    guess = np.log(config.get_text_config().vocab_size)
    read = {name: np.append(losses, guess)[rows] for name, rows in numbers.items()}  # NONE is the last
    if "ifd" in needs:
        read["ifd"] = read.pop("given") / np.maximum(read.pop("alone"), LOSS_FLOOR)
    return {name: values.astype(np.float32) for name, values in read.items()}


def conditional_scores(probabilities: NDArray[Any], labels: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
    """`perplexity` and `ifd` from a classifier alone, where no language model is given.

    `perplexity` is −log p(y|x), with p at least 1e-12; `ifd` divides it by −log of the class's share of the rows, at
    least `LOSS_FLOOR`. There are only as many denominators as classes: the raw ratio ranks classes as much as rows,
    so use it within a class.

    Args:
        probabilities: (n, c), of each class.
        labels: (n), the class index of each row.

    Raises:
        ValueError: the shapes do not fit, or a label is no class.

    >>> scores = conditional_scores(np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([0, 1]))
    >>> scores["perplexity"].round(4), scores["ifd"].round(4)
    (array([0.6931, 0.1054], dtype=float32), array([1.   , 0.152], dtype=float32))
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(f"`probabilities` {probabilities.shape} and `labels` {labels.shape} must be (n, c) and (n)")
    if labels.dtype.kind not in "iu" or (
        len(labels) and not 0 <= labels.min() <= labels.max() < probabilities.shape[1]
    ):
        raise ValueError(f"`labels` must be class indices below {probabilities.shape[1]}, one a row")
    chosen = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses = -np.log(np.maximum(chosen, _LEAST_PROBABILITY))
    shares = np.bincount(labels, minlength=probabilities.shape[1])[labels] / max(1, len(labels))
    ratios = losses / np.maximum(-np.log(shares), LOSS_FLOOR)
    return {"perplexity": losses.astype(np.float32), "ifd": ratios.astype(np.float32)}


def _check(needs: frozenset[str], kind: Kind, texts: Sequence[str], answers: Sequence[str] | None) -> None:
    if unknown := needs - LANGUAGE_SIGNALS:
        raise ValueError(f"cannot read {sorted(unknown)} from a language model; it gives {sorted(LANGUAGE_SIGNALS)}")
    if answers is None and ("ifd" in needs or (needs and kind == "seq2seq")):
        raise ValueError(f"{sorted(needs)} from a {kind} language model needs `answers`, one per text")
    if answers is not None and len(answers) != len(texts):
        raise ValueError(f"there are {len(texts)} `texts` and {len(answers)} `answers`; each text needs one")


class _Scorer:
    """The mean loss of each sequence. Its tokens' losses are kept apart until all are read, then summed in order."""

    def __init__(self, model: nn.Module, kind: Kind, tokenizer: PreTrainedTokenizerBase, sequences: Sequences) -> None:
        if kind == "masked" and tokenizer.mask_token_id is None:
            raise ValueError(f"{type(tokenizer).__name__} has no mask token, which a masked language model needs")
        self.model, self.kind, self.sequences = model, kind, sequences
        self.inner = plain_model(model)
        self.pad, self.mask = tokenizer.pad_token_id or 0, tokenizer.mask_token_id
        self.first = np.array(sequences.first, dtype=np.int64)
        self.counts = np.array(sequences.stop, dtype=np.int64) - self.first
        self.offsets = np.concatenate([[0], np.cumsum(self.counts)])

    def losses(self, batch_tokens: int, process_index: int, num_processes: int, progress: Progress | None) -> Any:
        """float64, one per sequence; of use on process 0 only."""
        values = np.zeros(self.offsets[-1], dtype=np.float32)
        if not len(values):
            return np.empty(0)
        # A masked model reads a sequence once per token: its units of work are tokens, not sequences.
        units = np.arange(len(self.counts))
        owners = np.repeat(units, self.counts) if self.kind == "masked" else units
        targets = np.array([len(ids) for ids in self.sequences.ids])[owners]
        sources = np.array([len(ids) for ids in self.sequences.sources])[owners]
        batches = _token_batches(sources, targets, batch_tokens)[process_index::num_processes]
        with PositionLogits(self.model, self.kind) as logits:
            for batch in progress(batches, len(batches)) if progress else batches:
                self._read(logits, batch, owners[batch], values)
        if num_processes > 1:
            _sum_over_processes(values)
        return np.add.reduceat(values, self.offsets[:-1], dtype=np.float64) / self.counts

    def _read(self, logits: PositionLogits, batch: Any, owners: Any, values: NDArray[np.float32]) -> None:
        if self.kind == "masked":
            rows, slots = np.arange(len(batch)), batch
        else:
            rows = np.repeat(np.arange(len(batch)), self.counts[owners])
            starts = np.cumsum(self.counts[owners]) - self.counts[owners]
            slots = np.arange(len(rows)) - np.repeat(starts - self.offsets[owners], self.counts[owners])
        columns = self.first[owners[rows]] + slots - self.offsets[owners[rows]]
        ids, own = _pad([self.sequences.ids[i] for i in owners], self.pad)
        wanted = torch.from_numpy(ids[rows, columns])
        inputs = self._inputs(ids, own, owners, rows, columns)
        device = self.inner.device
        inputs = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
        at = columns - 1 if self.kind == "causal" else columns
        budget = _CPU_LOGITS if device.type == "cpu" else _LOGITS
        chunk = max(1, budget // self.inner.config.get_text_config().vocab_size)
        parts = logits(inputs, torch.from_numpy(rows).to(device), torch.from_numpy(at).to(device), chunk)
        for start, part in zip(range(0, len(rows), chunk), parts, strict=True):
            there = wanted[start : start + chunk].to(part.device)
            values[slots[start : start + chunk]] = cross_entropy(part.float(), there, reduction="none").cpu().numpy()

    def _inputs(self, ids: Any, own: Any, owners: Any, rows: Any, columns: Any) -> dict[str, Any]:
        if self.kind == "seq2seq":
            sources, attended = _pad([self.sequences.sources[i] for i in owners], self.pad)
            labels = torch.from_numpy(np.where(own, ids, self.pad)).to(self.inner.device)
            return {
                "input_ids": torch.from_numpy(sources),
                "attention_mask": torch.from_numpy(attended),
                "decoder_input_ids": self.inner.prepare_decoder_input_ids_from_labels(labels),  # type: ignore[operator]
                "use_cache": False,
            }
        if self.kind == "masked":
            ids[rows, columns] = self.mask
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(own)}
        return inputs | ({"use_cache": False} if self.kind == "causal" else {})


def _token_batches(sources: Any, targets: Any, budget: int) -> list[NDArray[np.int64]]:
    """Units of work in batches of at most `budget` tokens with padding, longest first; equal lengths in order."""
    order = np.lexsort((-targets, -sources))
    batches, start = [], 0
    while start < len(order):
        ahead = order[start : start + max(1, budget // (sources[order[start]] + targets[order[start]]))]
        widest = sources[ahead[0]] + targets[ahead].max()
        batches.append(ahead[: max(1, budget // widest)])
        start += len(batches[-1])
    return batches


def _pad(rows: list[Any], fill: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids filled up on the right, and 1 where they are a row's own."""
    own = np.arange(max(map(len, rows))) < np.array([len(row) for row in rows])[:, None]
    ids = np.full(own.shape, fill, dtype=np.int64)
    ids[own] = np.concatenate(rows)
    return ids, own.astype(np.int64)


def _sum_over_processes(values: NDArray[np.float32]) -> None:
    """Every value is read by one process and zero on the others: the sum is exact."""
    import torch.distributed as dist

    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else "cpu"
    for start in range(0, len(values), _SENT_AT_A_TIME):
        part = torch.from_numpy(values[start : start + _SENT_AT_A_TIME]).to(device)
        dist.all_reduce(part)
        values[start : start + _SENT_AT_A_TIME] = part.cpu().numpy()
