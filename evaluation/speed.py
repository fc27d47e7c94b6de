"""How fast a model answers on this device: one row at a time, and many."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def inference_speed(
    model: Any,
    rows: Sequence[Mapping[str, Any]],
    collate: Callable[[list[Any]], Mapping[str, Any]],
    *,
    batch_size: int = 32,
    latency_rows: int = 50,
) -> dict[str, float]:
    """Median seconds of single rows as `latency_ms`, and rows a second in batches of similar length as `throughput`.

    The model is put into evaluation mode and back; outputs are thrown away. Each of the two begins with a pass that
    does not count. On a GPU it is waited for.

    Args:
        rows: as `collate` takes them, at least one, each with `input_ids`.
        collate: makes a batch of rows; `labels` in it are not passed on.
        batch_size: rows a batch, for the throughput.
        latency_rows: how many single rows, evenly spaced over the data.

    Raises:
        ValueError: there are no rows.
    """
    import torch

    if not rows:
        raise ValueError("there are no rows to measure with")
    device = next(model.parameters()).device

    def seconds(part: list[Any]) -> float:
        batch = {name: value.to(device) for name, value in collate(part).items() if name != "labels"}
        start = time.perf_counter()
        model(**batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    singles = [ordered[i] for i in range(0, len(ordered), max(1, len(ordered) // latency_rows))]
    batches = [list(ordered[i : i + batch_size]) for i in range(0, len(ordered), batch_size)]
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            seconds([singles[0]])
            latency = statistics.median(seconds([row]) for row in singles)
            seconds(batches[-1])
            whole = sum(seconds(batch) for batch in batches)
    finally:
        model.train(training)
    return {"latency_ms": latency * 1000, "throughput": len(ordered) / whole}
