if __name__ != "tithe.selection":
    raise ImportError(
        "import `tithe.selection`, not `selection`: the bare name would load a second copy of every class"
    )

from .acquisition import Bald, Committee, CoreSet, Entropy, LeastConfidence, Margin
from .aflite import AfliteReadability, predictability
from .badge import Badge
from .baselines import All, Random
from .catalogue import Described, describe_strategies
from .diversity import EntropyDiversity, KCenter
from .dsquared import d_squared_sample
from .easy_diverse import EdfsLite, QditLite
from .facility import FacilityLocation, Served, facility_location_greedy
from .kcenter import Coverage, ShardedCoverage, coverage_radius, k_center_greedy, k_center_sharded
from .lexical import Diversity, lexical_diversity
from .lexical_strategy import LexicalDiversity
from .margin_coverage import MarginCoverage
from .pool import Pool, Selection, ShardedStrategy, Strategy, check_request
from .readability import readability
from .registry import STRATEGIES, WRAPPERS, get_strategy
from .score_strategies import El2n, Ifd, Perplexity
from .uncertainty import (
    bald,
    consensus_entropy,
    least_confidence,
    margin,
    mean_kl_to_consensus,
    normalised_entropy,
    vote_entropy,
)
from .wrappers import Balanced, Deduplicated, Noisy


__all__ = [
    "STRATEGIES",
    "WRAPPERS",
    "AfliteReadability",
    "All",
    "Badge",
    "Balanced",
    "Bald",
    "Committee",
    "CoreSet",
    "Coverage",
    "Deduplicated",
    "Described",
    "Diversity",
    "EdfsLite",
    "El2n",
    "Entropy",
    "EntropyDiversity",
    "FacilityLocation",
    "Ifd",
    "KCenter",
    "LeastConfidence",
    "LexicalDiversity",
    "Margin",
    "MarginCoverage",
    "Noisy",
    "Perplexity",
    "Pool",
    "QditLite",
    "Random",
    "Selection",
    "Served",
    "ShardedCoverage",
    "ShardedStrategy",
    "Strategy",
    "bald",
    "check_request",
    "consensus_entropy",
    "coverage_radius",
    "d_squared_sample",
    "describe_strategies",
    "facility_location_greedy",
    "get_strategy",
    "k_center_greedy",
    "k_center_sharded",
    "least_confidence",
    "lexical_diversity",
    "margin",
    "mean_kl_to_consensus",
    "normalised_entropy",
    "predictability",
    "readability",
    "vote_entropy",
]
