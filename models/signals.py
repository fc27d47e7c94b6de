"""What a selection strategy wants to know of a pool, read from a model in one pass.

The pass leaves no trace: modules return to the mode they were in, and no random number generator moves, so a run with
it trains bit for bit like a run without. Batches are formed over the whole pool, by length, and handed to the
processes whole: what a row's batch looks like, and so its signals, does not depend on the number of processes.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .passes import evaluating, rng_neutral
from .row_arrays import ShardRows
from .structure import backbone, plain_model
from .taps import BackboneOutput, HeadInput


SIGNALS = frozenset({"embeddings", "probabilities", "el2n", "head_inputs", "mc_probabilities"})
"""The signals that `read_signals` can read. All but `embeddings` come from the head."""

_DROPOUT = frozenset({"mc_probabilities"})  # what is read with dropout on

_IGNORE = -100  # the label of positions that have none, as in Transformers
_MAX_CLASSES = 1000  # above it, "classes" are a vocabulary

Batch = Mapping[str, Tensor]
Reader = Callable[[Tensor | None, Tensor | None, Batch], Tensor]


def read_signals(
    model: nn.Module,
    dataset: Any,
    needs: Collection[str],
    *,
    collate: Callable[[list[Any]], Batch],
    lengths: Sequence[int] | NDArray[np.int64],
    batch_size: int = 32,
    prepare: Callable[[Any], Batch] | None = None,
    process_index: int = 0,
    num_processes: int = 1,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] | None = None,
    mc_passes: int = 10,
    mc_seed: int = 0,
) -> dict[str, NDArray[np.float32]]:
    """Read the signals `needs` of every row of `dataset` from `model`, in one forward pass without gradient.

    `probabilities` (n, c): softmax of the logits; for token classification the mean over the row's scored tokens.
    `embeddings` (n, d): mean over the attention mask of the backbone's last hidden state, in multiple choice over all
    choices of a row.
    `el2n` (n): ‖softmax − onehot(label)‖₂ (Paul et al., 2107.07075); for token classification the mean over the
    labelled tokens.
    `head_inputs` (n, h): what the last linear layer reads; for token classification the mean over the scored tokens.
    `mc_probabilities` (mc_passes, n, c): `probabilities` of further passes with dropout on (Gal & Ghahramani,
    1506.02142). The whole model is in training mode in these, as attention may drop by its own mode; batch norms are
    not. What is dropped follows from `mc_seed`, the batch and the pass, not from the number of processes.

    Args:
        model: sequence or token classifier, multiple-choice model, or for `embeddings` alone any Transformers model;
            DDP, DeepSpeed, FSDP, PEFT and quantised models too.
        dataset: rows by index, as `collate` takes them.
        needs: names out of `SIGNALS`.
        collate: makes a batch from rows, with `labels` where there are any.
        lengths: tokens of each row; decides only which rows share a batch.
        batch_size: rows a batch, per process.
        prepare: moves a batch to the model's device; by default as it is.
        process_index: this process's number, of `num_processes` that all call this with equal arguments.
        num_processes: 2 and more need an initialised `torch.distributed`.
        progress: wraps an iterable of known length, for a progress bar.
        mc_passes: passes with dropout.
        mc_seed: of what they drop.

    Returns:
        One float32 array per name, in the order of `dataset`; on process 0 only, empty elsewhere. An array above
        1 GiB lies in a temporary file (`numpy.memmap`) that goes when the array does.

    Raises:
        ValueError: a name is unknown, or the model or the data cannot give that signal.
    """
    options: dict[str, Any] = {"collate": collate, "lengths": lengths, "batch_size": batch_size, "prepare": prepare}
    options |= {"process_index": process_index, "num_processes": num_processes, "progress": progress}
    sink = _read(model, dataset, frozenset(needs), **options, mc_passes=mc_passes, mc_seed=mc_seed)
    found = sink.gather() if sink else {}
    if "mc_probabilities" in found:
        found["mc_probabilities"] = np.moveaxis(found["mc_probabilities"], 1, 0)
    return found


def read_shard(
    model: nn.Module, dataset: Any, needs: Collection[str], **options: Any
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]:
    """As `read_signals`, but each process keeps the rows that it has read, and nothing is sent.

    Returns:
        The numbers of this process's rows, rising, and one array per name in their order. Over all processes they are
        all rows, each once.

    Raises:
        ValueError: as `read_signals`, or `needs` has `mc_probabilities`.
    """
    if "mc_probabilities" in needs:
        raise ValueError("`mc_probabilities` are read by `read_signals` alone")
    sink = _read(model, dataset, frozenset(needs), mc_passes=0, mc_seed=0, **options)
    return (sink.rows, sink.arrays) if sink else (np.empty(0, np.int64), {})


def _read(
    model: nn.Module,
    dataset: Any,
    needs: frozenset[str],
    *,
    collate: Callable[[list[Any]], Batch],
    lengths: Sequence[int] | NDArray[np.int64],
    mc_passes: int,
    mc_seed: int,
    batch_size: int = 32,
    prepare: Callable[[Any], Batch] | None = None,
    process_index: int = 0,
    num_processes: int = 1,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] | None = None,
) -> ShardRows | None:
    """What this process reads; None where there is nothing to read."""
    if unknown := needs - SIGNALS:
        raise ValueError(f"cannot read {sorted(unknown)} from a model; it gives {sorted(SIGNALS)}")
    if not needs or len(dataset) == 0:
        return None
    batches = _length_sorted_batches(np.asarray(lengths), batch_size)
    rounds = -(-len(batches) // num_processes)
    # Every process runs as many batches as the others (sharded models need all of them at each one): the surplus is
    # a batch read twice, with the same result.
    numbers = [min(i * num_processes + process_index, len(batches) - 1) for i in range(rounds)]
    sink = ShardRows(len(dataset), batches, process_index, num_processes)
    plain = needs - _DROPOUT
    with ExitStack() as held:
        for context in (rng_neutral(), evaluating(model), torch.no_grad()):
            held.enter_context(context)
        hidden = held.enter_context(BackboneOutput(model, "embeddings" in needs))
        layer = held.enter_context(HeadInput(model, "head_inputs" in needs))
        prefetched = _prefetch(dataset, [batches[number] for number in numbers], collate)
        loaded = progress(prefetched, rounds) if progress else prefetched
        for number, (rows, batch) in zip(numbers, loaded, strict=True):
            batch = prepare(batch) if prepare else batch
            outputs = _forward(model, batch, plain) if plain else None
            for name in sorted(plain - {"embeddings"}):
                sink.put(name, rows, _READERS[name](outputs, layer.states, batch))
            if "embeddings" in plain:
                sink.put("embeddings", rows, _means(hidden, batch, len(rows)))
            if needs & _DROPOUT:
                sink.put("mc_probabilities", rows, _with_dropout(model, batch, mc_passes, (mc_seed, number)))
    return sink


def _length_sorted_batches(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """Longest first, so that memory runs out at the first batch if at all; equal lengths by row number."""
    order = np.argsort(-lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def _prefetch(
    dataset: Any, batches: list[NDArray[np.int64]], collate: Callable[[list[Any]], Batch]
) -> Iterator[tuple[NDArray[np.int64], Batch]]:
    """Collate one batch ahead in a thread, while the model reads the one before."""

    def load(rows: NDArray[np.int64]) -> Batch:
        indices = rows.tolist()
        fetch = getattr(dataset, "__getitems__", None)
        return collate(fetch(indices) if fetch else [dataset[i] for i in indices])

    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(load, batches[0])
        for i, rows in enumerate(batches):
            batch = ahead.result()
            if i + 1 < len(batches):
                ahead = pool.submit(load, batches[i + 1])
            yield rows, batch


def _forward(model: nn.Module, batch: Batch, needs: Collection[str]) -> Tensor | None:
    """The logits, in float32, of a forward pass without labels: no loss is computed."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    inner = plain_model(model)
    if needs == {"embeddings"} and inner.config.is_encoder_decoder and "decoder_input_ids" not in inputs:
        backbone(model)(input_ids=inputs["input_ids"], attention_mask=inputs.get("attention_mask"))
        return None
    outputs = model(**inputs)
    if needs == {"embeddings"}:
        return None
    if isinstance(outputs, dict):
        logits = outputs.get("logits")
    else:
        logits = outputs[0] if isinstance(outputs, tuple) else getattr(outputs, "logits", None)
    if logits is None:
        raise ValueError(f"{type(inner).__name__} gives no logits: all signals but `embeddings` need a classifier")
    if logits.shape[-1] > _MAX_CLASSES:
        raise ValueError(
            f"{type(inner).__name__} gives {logits.shape[-1]} logits a position, more than {_MAX_CLASSES}: "
            "a language model can be read for `embeddings` only"
        )
    if logits.shape[-1] == 1:
        raise ValueError(
            f"{type(inner).__name__} has one output: all signals but `embeddings` need two classes or more"
        )
    return logits.float()


def _with_dropout(model: nn.Module, batch: Batch, passes: int, seed: tuple[int, int]) -> Tensor:
    """Probabilities (rows, passes, classes) with dropout on."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    found = []
    for number in range(passes):
        # One number of 64 bits from all three: passes of one batch and batches of one pass draw independently.
        torch.manual_seed(int(np.random.SeedSequence((*seed, number)).generate_state(1, np.uint64)[0]) >> 1)
        found.append(_read_probabilities(_forward(model, batch, _DROPOUT), None, batch))
    model.eval()
    stacked = torch.stack(found, dim=1)
    if passes > 1 and bool((stacked == stacked[:, :1]).all()):
        raise ValueError(
            f"dropout changes nothing in {type(plain_model(model)).__name__}, so `mc_probabilities` say nothing: load "
            "it with dropout above 0"
        )
    return stacked


def _means(hidden: BackboneOutput, batch: Batch, rows: int) -> Tensor:
    """(rows, d): the mean over the attention mask, in multiple choice over all choices of a row."""
    states, mask = hidden.states, batch.get("attention_mask", hidden.mask)
    assert states is not None
    if mask is None:
        means = states.mean(1)
    else:
        weights = mask.to(states.dtype).flatten(0, -2)
        means = torch.bmm(weights.unsqueeze(1), states).squeeze(1) / weights.sum(1, keepdim=True).clamp(min=1)
    return means if len(means) == rows else means.unflatten(0, (rows, -1)).mean(1)


def _read_probabilities(logits: Tensor | None, states: Tensor | None, batch: Batch) -> Tensor:
    assert logits is not None
    probabilities = logits.softmax(-1)
    return probabilities if logits.dim() == 2 else _token_mean(probabilities, _scored(batch))


def _read_head_inputs(logits: Tensor | None, states: Tensor | None, batch: Batch) -> Tensor:
    assert logits is not None and states is not None
    if states.shape[:-1] != logits.shape[:-1]:
        raise ValueError(
            "`head_inputs` are read of models whose last layer gives the logits as they are; this one chooses among "
            f"its outputs (inputs {tuple(states.shape)}, logits {tuple(logits.shape)})"
        )
    return states if logits.dim() == 2 else _token_mean(states, _scored(batch))


def _read_el2n(logits: Tensor | None, states: Tensor | None, batch: Batch) -> Tensor:
    assert logits is not None
    labels = batch.get("labels")
    if labels is None or labels.is_floating_point() or labels.shape != logits.shape[:-1]:
        raise ValueError("`el2n` needs one class index per row (or per token) in `labels`")
    active = labels != _IGNORE
    onehot = torch.nn.functional.one_hot(labels.clamp(min=0), logits.shape[-1])
    errors = (logits.softmax(-1) - onehot).norm(dim=-1)
    return errors if logits.dim() == 2 else _token_mean(errors.unsqueeze(-1), active).squeeze(-1)


_READERS: dict[str, Reader] = {
    "probabilities": _read_probabilities,
    "el2n": _read_el2n,
    "head_inputs": _read_head_inputs,
}


def _scored(batch: Batch) -> Tensor:
    """The token positions that count: the labelled ones, or where nothing is labelled the attended ones."""
    labels = batch.get("labels")
    if labels is None and "attention_mask" not in batch:
        raise ValueError("tokens without `labels` need an `attention_mask` in the batch, which says what is padding")
    return labels != _IGNORE if labels is not None else batch["attention_mask"].bool()


def _token_mean(values: Tensor, active: Tensor) -> Tensor:
    """(rows, tokens, k) → (rows, k)"""
    weights = active.unsqueeze(-1).to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1).clamp(min=1)
