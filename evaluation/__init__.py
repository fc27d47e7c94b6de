if __name__ != "tithe.evaluation":
    raise ImportError(
        "import `tithe.evaluation`, not `evaluation`: the bare name would load a second copy of every class"
    )

from .figures import class_balance, confusion_matrix, pr_curves, reliability_diagram, roc_curves
from .files import atomic_path, to_plain, write_atomic, write_json_lines
from .memory import PeakMemory
from .metrics import (
    ClassificationMetrics,
    classification_metrics,
    confused_pairs,
    expected_calibration_error,
    per_class_table,
    softmax,
)
from .model_card import model_card
from .predictions import SplitPredictions, write_predictions
from .report import Section, run_sections, write_report
from .results import environment, read_results, write_results
from .run_figures import learning_curve, loss_curve, pool_map


__all__ = [
    "ClassificationMetrics",
    "PeakMemory",
    "Section",
    "SplitPredictions",
    "atomic_path",
    "class_balance",
    "classification_metrics",
    "confused_pairs",
    "confusion_matrix",
    "environment",
    "expected_calibration_error",
    "learning_curve",
    "loss_curve",
    "model_card",
    "per_class_table",
    "pool_map",
    "pr_curves",
    "read_results",
    "reliability_diagram",
    "roc_curves",
    "run_sections",
    "softmax",
    "to_plain",
    "write_atomic",
    "write_json_lines",
    "write_predictions",
    "write_report",
    "write_results",
]
