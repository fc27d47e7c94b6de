"""Which token comes next, and whether it was the last."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Sampling:
    """The likeliest token where `temperature` is 0, else one drawn from the `top_k` likeliest (0: all), and of those
    from the fewest whose probabilities reach `top_p` (Holtzman et al., 1904.09751), as `model.generate` does.

    Each prompt has random numbers of its own, one a token: what is drawn does not depend on the rows beside it.

    Raises:
        ValueError: a value is out of its range.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(f"`temperature` must be 0 (greedy) or above, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"`top_p` must be above 0 and at most 1, got {self.top_p}")
        if self.top_k < 0:
            raise ValueError(f"`top_k` must be 0 (all tokens) or above, got {self.top_k}")
        if self.temperature == 0 and (self.top_p < 1 or self.top_k):
            raise ValueError("`top_p` and `top_k` act on what is sampled: set `temperature` above 0")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    def uniforms(self, text: str, number: int, count: int) -> NDArray[np.float32]:
        """The random numbers in [0, 1) of a prompt that has `number` equals before it; none where it is greedy."""
        if self.greedy:
            return np.empty(0, dtype=np.float32)
        digest = hashlib.sha256(f"{number}\x1f{text}".encode()).digest()
        entropy = [self.seed, *np.frombuffer(digest, dtype=np.uint32).tolist()]
        return np.random.default_rng(entropy).random(count, dtype=np.float32)

    def choose(self, logits: Tensor, uniforms: Sequence[float]) -> list[int]:
        """A token for each row of `logits`, (rows, vocabulary); `uniforms` has a number per row, unless greedy."""
        if self.greedy:
            return logits.argmax(-1).tolist()
        probabilities = self.probabilities(logits)
        # In the order of the vocabulary, so that rounding moves the bounds and never the order of two tokens.
        reached = probabilities.cumsum(-1)
        total = reached[:, -1:]
        drawn = torch.tensor(uniforms, dtype=reached.dtype, device=reached.device)[:, None] * total
        last = (reached < total).sum(-1)  # the last token of any probability: rounding may give the product `total`
        return torch.searchsorted(reached, drawn, right=True)[:, 0].minimum(last).tolist()

    def probabilities(self, logits: Tensor) -> Tensor:
        """What is drawn from, in float32: 0 where `top_k` or `top_p` leave a token out.

        >>> Sampling(temperature=1, top_p=0.7).probabilities(torch.tensor([[0.5, 0.3, 0.2]]).log())
        tensor([[0.6250, 0.3750, 0.0000]])
        """
        scores = logits.float() / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            least = scores.topk(self.top_k).values[:, -1:]
            scores = scores.masked_fill(scores < least, -torch.inf)
        probabilities = scores.softmax(-1)
        if self.top_p < 1:
            ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
            out = ordered.cumsum(-1) - ordered >= self.top_p
            probabilities = probabilities.masked_fill(out.scatter(-1, tokens, out), 0)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities


class StopRule:
    """When an answer is complete, and its text.

    Args:
        tokenizer: of the model.
        max_new_tokens: the most that an answer may have.
        stop: strings; the answer ends before the first one in its text.
        eos: tokens that end it and are no part of it.

    Raises:
        ValueError: `max_new_tokens` is below 1, or a stop string is empty.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_new_tokens: int, stop: Sequence[str], eos: frozenset[int]
    ) -> None:
        if max_new_tokens < 1:
            raise ValueError(f"`max_new_tokens` must be at least 1, got {max_new_tokens}")
        if not all(stop):
            raise ValueError(f"`stop` has an empty string, which every text contains: {list(stop)}")
        self.max_new_tokens, self.stop, self.eos = max_new_tokens, tuple(stop), eos
        self._tokenizer: Any = tokenizer

    def reason(self, generated: Sequence[int]) -> str:
        """Why the answer is complete: "eos", "stop" or "length"; "" while it is not."""
        if generated[-1] in self.eos:
            return "eos"
        if self.stop and self._cut(self._decode(generated)) is not None:
            return "stop"
        return "length" if len(generated) >= self.max_new_tokens else ""

    def text(self, generated: Sequence[int]) -> str:
        """Without what ended it, special tokens, and blanks around it."""
        decoded = self._decode(generated[:-1] if generated[-1] in self.eos else generated)
        return decoded[: self._cut(decoded)].strip()

    def _decode(self, generated: Sequence[int]) -> str:
        return self._tokenizer.decode(list(generated), skip_special_tokens=True)

    def _cut(self, text: str) -> int | None:
        """Where the first stop string begins."""
        places = [place for place in (text.find(string) for string in self.stop) if place >= 0]
        return min(places, default=None)
