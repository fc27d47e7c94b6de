if __name__ != "tithe.trainers":
    raise ImportError("import `tithe.trainers`, not `trainers`: the bare name would load a second copy of every class")

from .checkpoints import finished_checkpoints, is_finished, last_finished_checkpoint
from .ledger import Ledger
from .losses import classification_loss
from .reliable import ReliableTrainer
from .round_selection import RoundSelectionConfig, RoundSelectionTrainer
from .rounds import RoundCallback
from .sampler import RoundSampler
from .tag_schemes import BioReport, check_bio, detect_scheme, to_iob2
from .word_labels import align_labels_with_tokens, tokenize_and_align


__all__ = [
    "BioReport",
    "Ledger",
    "ReliableTrainer",
    "RoundCallback",
    "RoundSampler",
    "RoundSelectionConfig",
    "RoundSelectionTrainer",
    "align_labels_with_tokens",
    "check_bio",
    "classification_loss",
    "detect_scheme",
    "finished_checkpoints",
    "is_finished",
    "last_finished_checkpoint",
    "to_iob2",
    "tokenize_and_align",
]
