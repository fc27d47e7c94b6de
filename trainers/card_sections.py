"""What each trainer's method adds to its model card: rounds, teachers, queries, adapters."""

from typing import Any

from torch import nn
from transformers.trainer_pt_utils import get_model_param_count

from ..evaluation import Section, hub_id, public_name
from ..models import plain_model, virtual_tokens_of
from ..selection import All
from .choosing import describe
from .teachers import Teacher


SELECTION = "What it was trained on"
_MOST_ROUNDS = 40


def selection_section(trainer: Any) -> list[Section]:
    """The rounds of a `RoundSelectionTrainer`: what chose how many rows, when, and what that cost."""
    ledger, args = trainer.ledger, trainer.args
    if not ledger.rows:
        return []
    pool, chosen = len(trainer.pool), len(ledger.selected)
    strategy, first = describe(trainer.strategy), ledger.rows[0]["strategy"]
    facts = {
        "rows": f"{chosen:,} of {pool:,} ({chosen / pool:.1%})",
        "strategy": strategy,
        "first round": None if first == strategy else first,
        "predictions from": "a linear proxy, before training" if args.proxy else "the model in training",
        "scored by": hub_id(args.scoring_model),
        "seed": args.seed,
        "fingerprint of the pool": str(ledger.terms["pool"]),
    }
    if isinstance(trainer.strategy, All):
        facts = {name: facts[name] for name in ("rows", "strategy", "fingerprint of the pool")}
    table = [
        {
            "round": row["round"],
            "step": row["step"],
            "strategy": row["strategy"].partition("(")[0],
            "rows added": row["added"],
            "rows": row["size"],
            "reading signals (s)": f"{row['seconds'].get('scoring', 0):.1f}",
            "choosing (s)": f"{row['seconds'].get('selecting', 0):.1f}",
        }
        for row in ledger.rows[:_MOST_ROUNDS]
    ]
    left = len(ledger.rows) - len(table)
    text = f"The first {_MOST_ROUNDS} rounds; {left} followed." if left > 0 else ""
    return [Section(SELECTION, text, facts, table)]


def described(teacher: Teacher) -> dict[str, Any]:
    """A teacher as a card names it, without any path; to be made while its model is still there."""
    model: Any = teacher.model
    if isinstance(model, nn.Module):
        inner = plain_model(model)
        name = hub_id(inner.config._name_or_path) or type(inner).__name__
        return {"teacher": name, "parameters": f"{get_model_param_count(model):,}", "weight": teacher.weight}
    return {"teacher": public_name(model), "parameters": None, "weight": teacher.weight}


def teachers_section(trainer: Any) -> list[Section]:
    """The teachers of a `DistillationTrainer`, and how it learnt from them."""
    if not trainer.teachers_described:
        return []
    args = trainer.args
    weights = ("soft_weight", "hard_weight", "hidden_weight", "attention_weight")
    facts = {
        "temperature": args.temperature,
        **{name.replace("_", " "): getattr(args, name) for name in weights if getattr(args, name)},
        "averaged over teachers": args.teacher_average if len(trainer.teachers_described) > 1 else None,
        "teachers read": "once, and cached" if trainer.caches_teacher else "in every epoch",
        "largest probabilities kept": args.teacher_top_k,
    }
    return [Section("Teachers", facts=facts, table=trainer.teachers_described)]


def loop_section(trainer: Any) -> list[Section]:
    """The queries of an `ExpertLoopTrainer`: how many labels, whose, and when."""
    ledger, args = trainer.ledger, trainer.args
    if not ledger.rows:
        return []
    by = trainer.answers.count_by()
    start = "from the initial weights" if args.iteration_start == "initial" else "where the last one ended"
    facts = {
        "labels": f"{len(trainer.answers.labelled):,} of {len(trainer.pool):,} rows",
        **{f"labels by {name}": count for name, count in by.items()},
        "query strategy": describe(trainer.strategy),
        "oracle": type(trainer.oracle).__name__,
        "rows without a label per labelled one": args.unlabelled_share or None,
        "each iteration starts": start,
        "ended": trainer.stopping.stopped or "after all iterations",
        "fingerprint of the pool": str(ledger.terms["pool"]),
    }
    table = [
        {
            "iteration": row["round"],
            "step": row["step"],
            "strategy": row["strategy"].partition("(")[0],
            "asked for": row["added"],
            "labels": row["labelled"],
        }
        for row in ledger.rows
    ]
    return [Section("What was asked for", "", facts, table)]


def adapters_section(trainer: Any) -> list[Section]:
    """What a `PTSeq2SeqTrainer` added to its model, and how little of it was trained."""
    args, model = trainer.args, trainer.model
    if not hasattr(model, "peft_config"):
        return []
    lora = next(iter(model.peft_config.values()))
    count, virtual = get_model_param_count(model, trainable_only=True), virtual_tokens_of(model)
    whole = get_model_param_count(model)
    modules = getattr(lora, "target_modules", None)
    facts = {
        "trained parameters": f"{count:,} of {whole:,} ({count / whole:.2%})",
        "LoRA rank": args.lora_rank or None,
        "LoRA alpha": lora.lora_alpha if args.lora_rank else None,
        "LoRA dropout": args.lora_dropout or None,
        "LoRA in": ", ".join(sorted(modules)) if args.lora_rank and isinstance(modules, set | list) else None,
        "vectors of the prompt": virtual or None,
        "prompt began as": {"text": "a text"}.get(args.prompt_init, args.prompt_init) if virtual else None,
    }
    return [Section("What was added to the model", facts=facts)]
