"""BADGE: rows that would move the last layer far, and in different directions."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from .dsquared import draw_by_distance
from .pool import Pool, Selection, check_request
from .uncertainty import normalised_entropy


_BLOCK_ROWS = 1024


@dataclass(frozen=True)
class Badge:
    """k-means++ over the gradients that the last layer would get if each row's prediction were its label (1906.03671).

    The gradient of a row is g = (p − onehot(argmax p)) ⊗ h, where h is what the last linear layer reads. The first
    pick is the largest |g|; each further one is drawn with probability proportional to the squared distance of g to
    the nearest picked. g has classes · width entries and is never made:
    |gᵢ − gⱼ|² = |qᵢ|²|hᵢ|² + |qⱼ|²|hⱼ|² − 2 (qᵢ·qⱼ)(hᵢ·hⱼ), with q = p − onehot(argmax p).

    Needs `probabilities` and `head_inputs`. Scores are |g|: of two classes the first counts as predicted where they
    tie. The rows of earlier rounds are no start, by definition. Rows that differ in nothing from a pick come last.

    Prefer it in active learning with batches too large for `Margin`, whose picks are alike. At 10 % a linear model on
    frozen embeddings reaches 87.0 % on banking77 and 72.7 % on rotten_tomatoes by it, 88.1 % and 73.4 % by margin, and
    84.0 % and 70.7 % by random; fine-tuning with it was not measured. Rows that the model is sure of all lie near
    zero, and so count as one. An untrained head's gradients mean nothing: give it a warm round first.

    >>> pool = Pool(ids=[0, 1], probabilities=[[0.5, 0.5], [0.9, 0.1]], head_inputs=[[1.0, 0.0], [0.0, 1.0]])
    >>> Badge().select(pool, 1, np.random.default_rng(0)).indices.tolist()
    [0]
    """

    needs: ClassVar[frozenset[str]] = frozenset({"probabilities", "head_inputs"})

    def select(self, pool: Pool, k: int, rng: np.random.Generator) -> Selection:
        check_request("badge", pool, k, self.needs)
        assert pool.probabilities is not None and pool.head_inputs is not None
        normalised_entropy(pool.probabilities)  # refuses logits
        by_id = np.argsort(pool.ids)
        gradients = Gradients(pool.probabilities[by_id], pool.head_inputs[by_id])
        first = int(gradients.squares.argmax())
        least = np.full(len(pool), np.inf, dtype=np.float32)
        gradients.lower(least, gradients.take(np.array([first])))
        order = draw_by_distance(gradients, k, rng, [first], least)
        norms = np.empty(len(pool))
        norms[by_id] = np.sqrt(gradients.squares)
        return Selection(pool.ids[by_id[order]], norms)


class Centres(NamedTuple):
    """The factors of some gradients, and half of their squared norms."""

    errors: np.ndarray
    inputs: np.ndarray
    half_squares: np.ndarray


class Gradients:
    """Squared distances between gradients, from their factors in float32: `errors` q (n, c) and `inputs` h (n, d).

    A squared distance within float32 rounding of zero counts as zero, so that a row and its copy are at distance zero.
    """

    def __init__(self, probabilities: np.ndarray, head_inputs: np.ndarray) -> None:
        self.errors = np.array(probabilities, dtype=np.float32)
        self.errors[np.arange(len(self.errors)), self.errors.argmax(axis=1)] -= 1
        self.inputs = np.ascontiguousarray(head_inputs, dtype=np.float32)
        squares = np.einsum("ij,ij->i", self.errors, self.errors)
        self.squares = squares * np.einsum("ij,ij->i", self.inputs, self.inputs)
        self._zero = np.float32(4 * np.finfo(np.float32).eps * np.sqrt(self.inputs.shape[1])) * self.squares

    def __len__(self) -> int:
        return len(self.squares)

    def take(self, where: np.ndarray) -> Centres:
        """The rows `where` as centres."""
        return Centres(self.errors[where], self.inputs[where], self.squares[where] / 2)

    def lower(self, least: np.ndarray, centres: Centres) -> None:
        """Lower `least` in place to the squared distance to the nearest of `centres`, where that is less."""
        errors, inputs = (np.ascontiguousarray(factor.T) for factor in (centres.errors, centres.inputs))
        for start in range(0, len(self), _BLOCK_ROWS):
            part = slice(start, start + _BLOCK_ROWS)
            products = self.inputs[part] @ inputs
            products *= self.errors[part] @ errors
            products -= centres.half_squares
            squared = self.squares[part] - 2 * products.max(axis=1)
            squared[squared <= self._zero[part]] = 0
            np.minimum(least[part], squared, out=least[part])

    def among(self, where: np.ndarray) -> np.ndarray:
        """Squared distances between the rows `where`, float32[len(where), len(where)]."""
        errors, inputs, half = self.take(where)
        squared = (errors @ errors.T) * (inputs @ inputs.T)
        squared -= half
        squared *= -2
        squared += self.squares[where][:, None]
        squared[squared <= self._zero[where][:, None]] = 0
        return squared
