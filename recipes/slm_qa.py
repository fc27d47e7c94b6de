"""Answer questions with a small language model: from what it knows, from the right passage, from passages found.

    accelerate launch recipes/slm_qa.py
    accelerate launch recipes/slm_qa.py --config recipes/configs/slm_qa_nq.yaml --mode no_context
    accelerate launch recipes/slm_qa.py --test_file rows.jsonl --corpus_file passages.jsonl --retriever hybrid
    accelerate launch recipes/slm_qa.py --compare runs/one runs/other --output_dir runs/compared

With neither data, model nor `--config` named it runs `configs/slm_qa.yaml`: a small model that is made of nothing on
the embedded corpus, tuned to answer, in all three modes. `--tune` first trains LoRA on the questions of train with the
same contexts. Answers are kept as they come, in `answers.jsonl`: a run that was stopped goes on after the last one.
"""

if __name__ == "__main__":  # before the libraries below read the environment
    from tithe.recipes.env_file import read_env_file

    read_env_file()

import sys
from dataclasses import dataclass, field

from transformers import TrainingArguments

from tithe.recipes.arguments import parse_arguments
from tithe.recipes.config_files import over_own_config
from tithe.recipes.qa_comparison import compare_runs
from tithe.recipes.qa_data import QAArguments, load_qa_data
from tithe.recipes.qa_model import DEFAULT_QA_MODEL, SMALL, QAModelArguments
from tithe.recipes.qa_prompts import MODES, RETRIEVER
from tithe.recipes.qa_results import print_summary, write_run
from tithe.recipes.qa_retrieval import BM25, HYBRID, RETRIEVERS, make_retriever
from tithe.recipes.qa_stages import QAStages
from tithe.recipes.run_defaults import RunDefaults
from tithe.recipes.splits import SPLITS
from tithe.recipes.staged_run import StagedRecipe, name_model, run_stages
from tithe.trainers import PTSeq2SeqConfig


ALL = "all"


@dataclass
class SLMQAConfig(RunDefaults, PTSeq2SeqConfig):
    """`PTSeq2SeqConfig` with the defaults of this recipe, and what only the recipe knows."""

    output_dir: str | None = field(
        default="runs/slm_qa",
        metadata={"help": "Folder for all that the run leaves. A run started again in its folder goes on there."},
    )
    mode: str = field(
        default=ALL,
        metadata={"help": f"`{'`, `'.join(MODES)}`, or `{ALL}`: what stands before a question."},
    )
    eval_split: str = field(default="test", metadata={"help": "The split whose questions are answered."})
    # Retrieval
    retriever: str = field(
        default="bm25", metadata={"help": f"`{'`, `'.join(RETRIEVERS)}`: what finds passages for `retriever_context`."}
    )
    passages: int = field(default=3, metadata={"help": "Passages found for a question."})
    language: str = field(default="en", metadata={"help": "Language of the corpus: BM25 stems its words."})
    dense_encoder: str = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Hub id or folder of the sentence encoder of `dense` and `hybrid`."},
    )
    hybrid_fusion: str = field(
        default="scores",
        metadata={"help": "How `hybrid` joins BM25 and dense: by `ranks` (reciprocal rank fusion), or by `scores`."},
    )
    hybrid_weights: list[float] | None = field(
        default_factory=lambda: [0.3, 1.0], metadata={"help": "How much BM25 and dense count in `hybrid`."}
    )
    reranker: str | None = field(
        default=None, metadata={"help": "Hub id or folder of a cross-encoder that orders what was found anew."}
    )
    # Prompts and answers
    instruction: str | None = field(
        default="Answer the question in a few words.",
        metadata={"help": "What stands before all else; `none` for none."},
    )
    chat: bool | None = field(
        default=None, metadata={"help": "Use the tokenizer's chat template. Default: where it has one."}
    )
    max_prompt_length: int = field(
        default=2048,
        metadata={"help": "Tokens of a prompt: passages that do not fit are left out whole, and counted."},
    )
    max_new_tokens: int = field(default=32, metadata={"help": "Tokens of an answer."})
    temperature: float = field(default=0.0, metadata={"help": "Of sampling; 0 takes the likeliest token."})
    top_p: float = field(default=1.0, metadata={"help": "Sample among the likeliest tokens of this share."})
    top_k: int = field(default=0, metadata={"help": "Sample among so many likeliest tokens; 0 for all."})
    answer_batch_size: int | None = field(
        default=None, metadata={"help": "Prompts answered at a time, at most. Default: what memory has room for."}
    )
    grader: str | None = field(
        default=None,
        metadata={
            "help": "Grade answers as SimpleQA does: `rules`, or the hub id or folder of a causal model that judges."
        },
    )
    # Tuning
    tune: bool = field(default=False, metadata={"help": "First train LoRA on the questions of train."})
    virtual_tokens: int = field(default=0, metadata={"help": "Not for this recipe: LoRA alone is tuned."})
    base_epochs: float = field(
        default=2.0, metadata={"help": f"Epochs in which the `{SMALL}` model is trained first."}
    )
    base_learning_rate: float = field(default=5e-3, metadata={"help": "Its learning rate."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: `no`, `steps` or `epoch`."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End with the weights whose loss on validation was least."}
    )
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Rows per device and step."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Rows per device and batch in evaluation."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.instruction is not None and self.instruction.lower() == "none":
            self.instruction = None
        choices = {"mode": (*MODES, ALL), "retriever": RETRIEVERS, "eval_split": SPLITS}
        choices["hybrid_fusion"] = ("ranks", "scores")
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}; got {getattr(self, name)!r}")
        if self.virtual_tokens:
            raise ValueError("`virtual_tokens`: this recipe tunes LoRA alone; prompt_tune.py tunes a soft prompt")
        if self.tune and not self.lora_rank:
            raise ValueError("`tune` needs `lora_rank` above 0")
        if self.tune and self.eval_split == "train":
            raise ValueError("`tune` trains on train: choose another `eval_split`")
        for name in ("passages", "max_new_tokens", "max_prompt_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.temperature < 0:
            raise ValueError(f"`temperature` must not be negative, got {self.temperature}")

    def check_extras(self) -> None:
        super().check_extras()
        if RETRIEVER in self.modes and self.retriever in (BM25, HYBRID):
            make_retriever(BM25, self)  # costs nothing, unlike the encoder of the other half

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that are run, in order."""
        return MODES if self.mode == ALL else (self.mode,)


def main(argv: list[str] | None = None) -> None:
    """Run the recipe with the flags `argv`, by default those of the command line."""
    argv = sys.argv[1:] if argv is None else argv
    if any(part.split("=")[0] == "--compare" for part in argv):
        compare_runs(argv)
        return
    recipe = StagedRecipe(parse=parse, load=load_qa_data, stages=QAStages, write=write_run, show=print_summary)
    run_stages(recipe, argv)


def parse(argv: list[str]) -> tuple[QAArguments, QAModelArguments, SLMQAConfig]:
    """The arguments; where nothing says otherwise, over the recipe's own config file."""
    with over_own_config(argv, "slm_qa") as argv:
        found = parse_arguments((QAArguments, QAModelArguments, SLMQAConfig), argv, __doc__)
    data_args, model_args, args = found
    name_model(data_args, model_args, small=SMALL, default=DEFAULT_QA_MODEL)
    if args.learning_rate == TrainingArguments.learning_rate:
        args.learning_rate = 3e-4  # LoRA starts from nothing: the parent's default is for whole models
    return data_args, model_args, args


if __name__ == "__main__":
    main()
