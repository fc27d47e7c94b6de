if __name__ != "tithe.trainers":
    raise ImportError("import `tithe.trainers`, not `trainers`: the bare name would load a second copy of every class")

from .batch_size import BatchSize, BatchTry, find_batch_size, keep_global_batch
from .checkpoints import finished_checkpoints, is_finished, last_finished_checkpoint
from .distillation import DistillationConfig, DistillationTrainer
from .distillation_losses import (
    TopK,
    attention_loss,
    average_teachers,
    hidden_state_loss,
    soft_loss,
    top_k_of,
    top_k_soft_loss,
)
from .emissions import TrackEmissions
from .exchange import shared_by_all
from .expert_loop import ExpertLoopConfig, ExpertLoopTrainer
from .file_oracle import FileOracle
from .fused_distillation import FusedLoss, fused_distillation
from .ledger import Ledger
from .losses import classification_loss
from .oracles import Answer, ColumnOracle, EnsembleOracle, LabelsWanted, Oracle, Query
from .prompt_tuning import PTDataCollator, PTSeq2SeqConfig, PTSeq2SeqTrainer
from .reliable import ReliableTrainer
from .round_selection import RoundSelectionConfig, RoundSelectionTrainer
from .rounds import RoundCallback
from .sampler import RoundSampler
from .search_space import DEFAULT_SPACE, Choice, Range
from .tag_schemes import BioReport, check_bio, detect_scheme, to_iob2
from .teacher_rows import DenseTeacher, LinearTeacher, TeacherEnsemble, TeacherRows
from .teachers import Teacher
from .tuning import Tuning, tune
from .word_labels import align_labels_with_tokens, tokenize_and_align


__all__ = [
    "DEFAULT_SPACE",
    "Answer",
    "BatchSize",
    "BatchTry",
    "BioReport",
    "Choice",
    "ColumnOracle",
    "DenseTeacher",
    "DistillationConfig",
    "DistillationTrainer",
    "EnsembleOracle",
    "ExpertLoopConfig",
    "ExpertLoopTrainer",
    "FileOracle",
    "FusedLoss",
    "LabelsWanted",
    "Ledger",
    "LinearTeacher",
    "Oracle",
    "PTDataCollator",
    "PTSeq2SeqConfig",
    "PTSeq2SeqTrainer",
    "Query",
    "Range",
    "ReliableTrainer",
    "RoundCallback",
    "RoundSampler",
    "RoundSelectionConfig",
    "RoundSelectionTrainer",
    "Teacher",
    "TeacherEnsemble",
    "TeacherRows",
    "TopK",
    "TrackEmissions",
    "Tuning",
    "align_labels_with_tokens",
    "attention_loss",
    "average_teachers",
    "check_bio",
    "classification_loss",
    "detect_scheme",
    "find_batch_size",
    "finished_checkpoints",
    "fused_distillation",
    "hidden_state_loss",
    "is_finished",
    "keep_global_batch",
    "last_finished_checkpoint",
    "shared_by_all",
    "soft_loss",
    "to_iob2",
    "tokenize_and_align",
    "top_k_of",
    "top_k_soft_loss",
    "tune",
]
