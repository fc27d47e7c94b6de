if __name__ != "tithe.evaluation":
    raise ImportError(
        "import `tithe.evaluation`, not `evaluation`: the bare name would load a second copy of every class"
    )

from .answer_metrics import ANSWER_METRICS, answer_metrics, answer_scores, normalize_answer
from .bars import grouped_bars
from .card_metadata import LICENSES, hub_id, known_license, license_fields, public_name
from .card_usage import usage_code
from .comparison import (
    BASELINE,
    COMPARED_METRICS,
    FULL,
    ComparedRun,
    Difference,
    Spread,
    budget_text,
    comparison_rows,
    csv_text,
    difference_rows,
    jaccard,
    markdown_table,
    mean_overlaps,
    paired_difference,
    readable_rows,
    spread,
    time_rows,
)
from .comparison_figures import budget_curves, overlap_matrix, seed_scores
from .emissions import Emissions, EmissionsTracker, check_country, read_emissions
from .entities import (
    ENTITY_METRICS,
    EntityMetrics,
    entity_metrics,
    entity_spans,
    entity_table,
    keep_predictions,
    tag_rows,
)
from .entity_errors import entity_errors, match_entities, token_confusion, token_ids
from .entity_page import TaggedSentence, entity_page
from .figures import class_balance, confusion_matrix, pr_curves, reliability_diagram, roc_curves
from .files import atomic_path, to_plain, write_atomic, write_json_lines
from .generation_metrics import GENERATION_METRICS, LANGUAGES, generation_metrics, metric_signatures
from .intervals import (
    Interval,
    PairedComparison,
    bootstrap_interval,
    bootstrap_of_sums,
    paired_comparison,
    wilson_interval,
)
from .label_curves import LabelCurve, label_curves, labels_to_reach
from .masking import mask, masked, remember_secret, remember_secrets_of, without_secrets
from .memory import PeakMemory
from .memory_limits import MemoryLeft, give_back_memory, memory_left
from .memory_timeline import MemoryTimeline, memory_over_time
from .metrics import (
    CLASSIFICATION_METRICS,
    ClassificationMetrics,
    classification_metrics,
    confused_pairs,
    expected_calibration_error,
    per_class_table,
    softmax,
)
from .model_card import CARD_NAME, is_unedited, model_card, sign, write_card
from .predictions import SplitPredictions, write_predictions
from .refusals import REFUSALS, is_refusal
from .report import Section, rewrite_report, run_sections, write_report
from .results import environment, read_results, write_results
from .retrieval_metrics import answer_retrieval_metrics, contains_answer, retrieval_metrics
from .round_figure import PoolPlane, RoundMap, round_figure
from .run_figures import learning_curve, loss_curve, pool_map
from .score_intervals import (
    classification_intervals,
    entity_intervals,
    generation_intervals,
    language_intervals,
)
from .simpleqa import (
    GRADES,
    GRADING_TEMPLATE,
    grade_answers,
    grading_prompts,
    parse_grade,
    rule_grades,
    simpleqa_metrics,
)
from .speed import inference_speed
from .tuning_figures import optimisation_history, parallel_coordinates, parameter_importance, trial_curves


__all__ = [
    "CLASSIFICATION_METRICS",
    "ENTITY_METRICS",
    "ANSWER_METRICS",
    "BASELINE",
    "CARD_NAME",
    "COMPARED_METRICS",
    "FULL",
    "GENERATION_METRICS",
    "GRADES",
    "GRADING_TEMPLATE",
    "LANGUAGES",
    "LICENSES",
    "REFUSALS",
    "ClassificationMetrics",
    "ComparedRun",
    "Difference",
    "Emissions",
    "EmissionsTracker",
    "EntityMetrics",
    "Interval",
    "LabelCurve",
    "MemoryLeft",
    "MemoryTimeline",
    "PairedComparison",
    "PeakMemory",
    "PoolPlane",
    "RoundMap",
    "Section",
    "SplitPredictions",
    "Spread",
    "TaggedSentence",
    "answer_metrics",
    "answer_retrieval_metrics",
    "answer_scores",
    "atomic_path",
    "bootstrap_interval",
    "bootstrap_of_sums",
    "budget_curves",
    "budget_text",
    "check_country",
    "class_balance",
    "classification_intervals",
    "classification_metrics",
    "comparison_rows",
    "confused_pairs",
    "confusion_matrix",
    "contains_answer",
    "csv_text",
    "difference_rows",
    "entity_errors",
    "entity_intervals",
    "entity_metrics",
    "entity_page",
    "entity_spans",
    "entity_table",
    "environment",
    "expected_calibration_error",
    "generation_intervals",
    "generation_metrics",
    "give_back_memory",
    "grade_answers",
    "grading_prompts",
    "grouped_bars",
    "hub_id",
    "inference_speed",
    "is_refusal",
    "is_unedited",
    "jaccard",
    "keep_predictions",
    "known_license",
    "label_curves",
    "labels_to_reach",
    "learning_curve",
    "language_intervals",
    "license_fields",
    "loss_curve",
    "markdown_table",
    "mask",
    "masked",
    "match_entities",
    "mean_overlaps",
    "memory_left",
    "memory_over_time",
    "metric_signatures",
    "model_card",
    "normalize_answer",
    "optimisation_history",
    "overlap_matrix",
    "paired_comparison",
    "paired_difference",
    "parallel_coordinates",
    "parameter_importance",
    "parse_grade",
    "per_class_table",
    "pool_map",
    "pr_curves",
    "public_name",
    "read_emissions",
    "read_results",
    "readable_rows",
    "remember_secret",
    "remember_secrets_of",
    "reliability_diagram",
    "retrieval_metrics",
    "roc_curves",
    "round_figure",
    "rule_grades",
    "rewrite_report",
    "run_sections",
    "seed_scores",
    "sign",
    "simpleqa_metrics",
    "softmax",
    "spread",
    "tag_rows",
    "time_rows",
    "to_plain",
    "token_confusion",
    "token_ids",
    "trial_curves",
    "without_secrets",
    "usage_code",
    "wilson_interval",
    "write_atomic",
    "write_card",
    "write_json_lines",
    "write_predictions",
    "write_report",
    "write_results",
]
