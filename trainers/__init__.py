if __name__ != "tithe.trainers":
    raise ImportError("import `tithe.trainers`, not `trainers`: the bare name would load a second copy of every class")

from .checkpoints import finished_checkpoints, is_finished, last_finished_checkpoint
from .distillation import DistillationConfig, DistillationTrainer
from .ledger import Ledger
from .losses import classification_loss
from .reliable import ReliableTrainer
from .round_selection import RoundSelectionConfig, RoundSelectionTrainer
from .rounds import RoundCallback
from .sampler import RoundSampler
from .teachers import Teacher


__all__ = [
    "DistillationConfig",
    "DistillationTrainer",
    "Ledger",
    "ReliableTrainer",
    "RoundCallback",
    "RoundSampler",
    "RoundSelectionConfig",
    "RoundSelectionTrainer",
    "Teacher",
    "classification_loss",
    "finished_checkpoints",
    "is_finished",
    "last_finished_checkpoint",
]
