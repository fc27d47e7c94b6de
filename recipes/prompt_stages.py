"""What a prompt-tuning run trains: a small base first, where none is named, and then what is added to it."""

import json
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from tithe.evaluation import PeakMemory, generation_intervals, generation_metrics, write_json_lines
from tithe.models import export_peft, export_plain, generate_predictions, input_positions
from tithe.recipes.caching import built_once
from tithe.recipes.instruction_data import InstructionArguments, InstructionData
from tithe.recipes.loading import load_tokenizer
from tithe.recipes.seq2seq_model import (
    SMALL,
    Seq2SeqModelArguments,
    build_small_base,
    load_base,
    tokenised,
    with_words_dropped,
)
from tithe.recipes.splits import SPLITS
from tithe.recipes.stages import Rows, StageResult, StageRunner
from tithe.trainers import PTSeq2SeqTrainer


BASE, ADAPTED, EXPORTS = "base", "adapted", "exports"
PREDICTIONS_NAME, SAMPLES_NAME = "predictions-{split}.jsonl", "samples.jsonl"
# Ways to decode that the report shows beside each other.
SETTINGS: dict[str, dict[str, Any]] = {
    "beams 4, T 0.2": {"num_beams": 4, "do_sample": True, "temperature": 0.2, "top_k": 30, "top_p": 0.95},
    "sampling, T 0.9": {"num_beams": 1, "do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.9},
    "beams 4, T 0.8": {"num_beams": 4, "do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95},
}


class PromptStages(StageRunner):
    """Runs the stages in order, each unless it is finished already.

    Raises:
        ValueError: the model cannot be loaded, or the inputs are longer than it reads; before anything is trained.
    """

    def __init__(
        self,
        data: InstructionData,
        data_args: InstructionArguments,
        model_args: Seq2SeqModelArguments,
        args: Any,
        memory: PeakMemory,
    ) -> None:
        super().__init__(args, memory)
        if args.export_plain and model_args.quantised:
            raise ValueError("`export_plain` merges LoRA into the base, which is not possible in 8 or 4 bits")
        self.data, self.data_args, self.model_args = data, data_args, model_args
        self.source: Any = model_args.model_name_or_path
        if self.starts_from_nothing:
            texts = [*data.train["source"][:], *data.train["target"][:]]
            self.source = built_once(self.root / "initial_model", lambda to: build_small_base(to, texts, args.seed))
        self.tokenizer = load_tokenizer(self.source, model_args.model_revision)
        with PartialState().main_process_first():
            self.rows = {split: self._tokenised(getattr(data, split)) for split in SPLITS}
        self._base = None if self.starts_from_nothing else self._load(self.source)
        room = None if self._base is None else input_positions(self._base)
        if room is not None and data_args.max_input_length + args.virtual_tokens > room:
            raise ValueError(
                f"`max_input_length` {data_args.max_input_length} and {args.virtual_tokens} `virtual_tokens` are more "
                f"than the {room} positions of {self.source}: lower one of them"
            )

    @property
    def starts_from_nothing(self) -> bool:
        """Whether there is a base to train first."""
        return self.model_args.model_name_or_path == SMALL

    def _load(self, source: str | Path) -> Any:
        return load_base(self.model_args, source, self.args.use_cpu)

    def _tokenised(self, rows: Dataset) -> Dataset:
        return tokenised(rows, self.tokenizer, self.data_args.max_input_length, self.data_args.max_output_length)

    def run(self) -> list[StageResult]:
        """All results, those of stages that were finished before included."""
        done = []
        if self.starts_from_nothing:
            done.append(self._once(BASE, self._make_base))
        return [*done, self._once(ADAPTED, self._make_adapted)]

    def _make_base(self, folder: Path) -> tuple[PTSeq2SeqTrainer, Rows]:
        changes = {"num_train_epochs": self.args.base_epochs, "learning_rate": self.args.base_learning_rate}
        args = self._arguments_in(folder, lora_rank=0, virtual_tokens=0, **changes)
        rows = {
            split: self._tokenised(with_words_dropped(getattr(self.data, split)["target"][:], args.seed + number))
            for number, split in enumerate(SPLITS)
        }
        return self._trainer(self._load(self.source), args, rows), rows

    def _make_adapted(self, folder: Path) -> tuple[PTSeq2SeqTrainer, Rows]:
        args = self._arguments_in(folder)
        base = self._load(self.root / BASE) if self._base is None else self._base
        return self._trainer(base, args, self.rows), self.rows

    def _trainer(self, model: Any, args: Any, rows: Rows) -> PTSeq2SeqTrainer:
        return PTSeq2SeqTrainer(
            model,
            args,
            train_dataset=rows["train"],
            eval_dataset=rows["validation"],
            processing_class=self.tokenizer,
        )

    # Generation

    def _untrained(self, trainer: Any, name: str) -> dict[str, Any]:
        if name != ADAPTED:
            return {}
        # The prompt alone would change what the base writes: the untrained model is the base.
        with trainer.model.disable_adapter():
            texts = self._texts(trainer, "test", Path(trainer.args.output_dir) / "untrained.jsonl")
        scores = self._scored("test", texts)
        return {f"{metric} untrained": score for metric, score in scores.items()}

    def _trained(self, trainer: Any, rows: Rows, folder: Path) -> dict[str, Any]:
        if folder.name != ADAPTED:
            return {}
        texts = {
            split: self._texts(trainer, split, folder / PREDICTIONS_NAME.format(split=split))
            for split in ("validation", "test")
        }
        scores = {split: self._scored(split, written) for split, written in texts.items()}
        references = references_of(self.data.test)
        bounds = generation_intervals(texts["test"], references, language=self.data_args.language, seed=self.args.seed)
        trainable, parameters = trainer.model.get_nb_trainable_parameters()
        self._write_samples(trainer, folder)
        self._export(trainer)
        notes = {"trainable": trainable, "parameters": parameters}
        return {"generation": scores, "intervals": {"test": bounds}, **notes}

    def _texts(self, trainer: Any, split: str, path: Path) -> list[str]:
        """What the model writes for a split, kept in `path`."""
        sources = getattr(self.data, split)["source"][:]
        return self._generated(trainer, sources, path, num_beams=self.args.generation_num_beams or 1)

    def _scored(self, split: str, texts: list[str]) -> dict[str, float]:
        references = references_of(getattr(self.data, split))
        return generation_metrics(texts, references, language=self.data_args.language)

    def _generated(self, trainer: Any, sources: list[str], path: Path | None, **options: Any) -> list[str]:
        # All processes generate all texts, in step: under ZeRO-3 each needs the others' weights.
        trainer.accelerator.wait_for_everyone()
        return generate_predictions(
            trainer.model,
            self.tokenizer,
            sources,
            path,
            append=PartialState().is_main_process,
            batch_size=self.args.per_device_eval_batch_size,
            max_length=self.data_args.max_input_length,
            seed=self.args.seed,
            progress=PartialState().is_main_process and not self.args.disable_tqdm,
            max_new_tokens=self.data_args.max_output_length,
            **options,
        )

    def _export(self, trainer: Any) -> None:
        """For plain PEFT and, if asked for, plain Transformers; weights that are spread over processes stay here."""
        if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled or not PartialState().is_main_process:
            return
        export_peft(trainer.model, self.root / EXPORTS)
        if self.args.export_plain:
            export_plain(trainer.model, self.root / EXPORTS / "plain", self.tokenizer)

    def _write_samples(self, trainer: Any, folder: Path) -> None:
        """What the model writes for a few rows of test, by each way of decoding."""
        rows = self.data.test.select(range(min(self.args.sample_rows, len(self.data.test))))
        sources = rows["source"][:]
        texts = {name: self._generated(trainer, sources, None, **options) for name, options in SETTINGS.items()}
        if PartialState().is_main_process:
            found = [
                {"source": row["source"], "target": row["target"], **{name: texts[name][place] for name in texts}}
                for place, row in enumerate(rows)
            ]
            write_json_lines(folder / SAMPLES_NAME, found)


def references_of(rows: Dataset) -> list[Any]:
    """What the outputs of `rows` are scored against: their references, or their targets where they have none."""
    return list(rows["references" if "references" in rows.column_names else "target"])


def read_samples(folder: Path) -> list[dict[str, str]]:
    """The samples of a finished stage."""
    return [json.loads(line) for line in (folder / SAMPLES_NAME).read_text(encoding="utf-8").splitlines()]
