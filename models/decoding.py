"""The decode loop: rows that are done leave, others take their places, and fewer are tried when memory runs out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from torch import Tensor

from .kv_rows import CachedPasses, LiveRows
from .memory_errors import ran_out_of_memory
from .token_choice import Sampling, StopRule


_CPU_ROWS, _DEVICE_ROWS = 32, 256
_SHARE_OF_MEMORY, _CPU_BYTES = 0.25, 2**31


@dataclass(eq=False)
class Row:
    """A prompt and its answer so far.

    Args:
        number: its own, of use to the caller.
        ids: the prompt's tokens behind the shared prefix, at least one.
        uniforms: a random number per token to come; empty where none is drawn.
    """

    number: int
    ids: Sequence[int]
    uniforms: Any = ()
    generated: list[int] = field(default_factory=list)
    stopped: str = ""


class DecodeLoop:
    """Answers rows, longest first, at most `batch_size` at a time, and `tokens` with padding and what is to come.

    Where half of the places are free and rows wait, as many as there is room for are read and join. When memory runs
    out, what is under way goes back to those that wait, and from then on half as many rows are tried.

    Args:
        passes: the model's.
        sampling: which token comes next.
        rule: when a row is done.
        batch_size: the most rows.
        tokens: the most tokens that rows may come to have in the cache.
    """

    def __init__(
        self, passes: CachedPasses, sampling: Sampling, rule: StopRule, batch_size: int, tokens: float = float("inf")
    ) -> None:
        self.passes, self.sampling, self.rule = passes, sampling, rule
        self.batch_size, self.tokens = batch_size, tokens
        self._waiting: list[Row] = []
        self._rows: list[Row] = []
        self._live: LiveRows | None = None
        self._tried = 0

    def run(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """The rows, some at a time, as soon as they are done."""
        self._waiting, self._rows, self._live = sorted(rows, key=lambda row: -len(row.ids)), [], None
        while self._waiting or self._rows:
            try:
                done = self._advance()
            except (RuntimeError, MemoryError) as error:
                if self._tried <= 1 or not ran_out_of_memory(error, small_ones_work=True):
                    raise
                done = None
            if done is None:  # outside of `except`, where the traceback would still hold the tensors
                self._back_off()
            elif done:
                yield done

    def _advance(self) -> list[Row]:
        """One pass: of rows that join, else of all there are. Nothing of theirs changes hands before it is over."""
        room = self._room()
        if self._waiting and 2 * len(self._rows) <= room:
            fresh = self._waiting[: room - len(self._rows)]
            self._tried = len(self._rows) + len(fresh)
            joining, logits = self.passes.start([row.ids for row in fresh])
            left = self._take(joining, logits, fresh)
            if left and self._live is not None:
                self._live.join(joining)
            elif left:
                self._live = joining
            self._rows, self._waiting = self._rows + left, self._waiting[len(fresh) :]
            return [row for row in fresh if row.stopped]
        rows: list[Row] = self._rows
        live: Any = self._live
        self._tried = len(rows)
        places = [self.passes.prefix + len(row.ids) + len(row.generated) - 1 for row in rows]
        logits = self.passes.step(live, [row.generated[-1] for row in rows], places)
        self._rows = self._take(live, logits, rows)
        if not self._rows:
            self._live = None
        return [row for row in rows if row.stopped]

    def _take(self, live: LiveRows, logits: Tensor, rows: Sequence[Row]) -> list[Row]:
        """Give each row its next token; the rows that go on, to which `live` is cut down."""
        drawn = [] if self.sampling.greedy else [float(row.uniforms[len(row.generated)]) for row in rows]
        for row, token in zip(rows, self.sampling.choose(logits, drawn), strict=True):
            row.generated.append(token)
            row.stopped = self.rule.reason(row.generated)
        left = [place for place, row in enumerate(rows) if not row.stopped]
        if 0 < len(left) < len(rows):
            live.keep(left)
        return [rows[place] for place in left]

    def _room(self) -> int:
        """How many rows may be under way: a batch is as wide as the longest may become."""
        longest = max(len(row.ids) for row in (*self._rows, *self._waiting[:1]))
        return int(
            max(1, min(self.batch_size, self.tokens / (self.passes.prefix + longest + self.rule.max_new_tokens)))
        )

    def _back_off(self) -> None:
        waiting = {id(row) for row in self._waiting}
        back = [row for row in self._rows if id(row) not in waiting]
        self._waiting = sorted(back + self._waiting, key=lambda row: -len(row.ids))
        for row in self._waiting:
            row.generated, row.stopped = [], ""
        self._rows, self._live = [], None
        self.batch_size = max(1, self._tried // 2)
        clear_device_cache(garbage_collection=True)


def room_in_memory(model: Any) -> tuple[int, float]:
    """Rows and tokens that a `DecodeLoop` may begin with: what a quarter of a GPU's free memory holds, else 2 GiB.

    A token takes its keys and values, twice while they grow, and what flows through a layer as the prompt is read. On
    a CPU the rows are 32 at most.
    """
    config, device = model.config.get_text_config(), model.device
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    kept = 4 * config.num_hidden_layers * (getattr(config, "num_key_value_heads", None) or heads) * head
    flowing = 8 * config.hidden_size + 4 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    room: float = _CPU_BYTES
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        room = _SHARE_OF_MEMORY * (torch.cuda.mem_get_info(device)[0] + unused)
    rows = _CPU_ROWS if device.type == "cpu" else _DEVICE_ROWS
    return rows, room / (model.dtype.itemsize * (kept + flowing))
