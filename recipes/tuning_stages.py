"""What a tuning run does before its main run: the batch that fits, and the trials."""

import copy
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset
from transformers import DataCollatorWithPadding, PrinterCallback

from tithe.evaluation import ClassificationMetrics, to_plain, write_atomic
from tithe.recipes.classification import ClassificationData
from tithe.recipes.classifier import ModelArguments, load_classifier, tokenise
from tithe.recipes.comparison_runs import run_environment, stopped_by_signals, visible_devices
from tithe.recipes.config_files import RunDumper
from tithe.recipes.splits import carve, stratified_sample
from tithe.recipes.tuning_arguments import SEARCH, TuneConfig
from tithe.trainers import RoundSelectionTrainer, Tuning, find_batch_size, keep_global_batch, tune


BATCH_NAME, BEST_NAME, TRIALS_NAME = "batch_size.json", "hyperparameters.yaml", "trials.json"
_EVALUATIONS = 8  # of each trial, where trials are pruned


@dataclass(frozen=True)
class Batch:
    """The batch of all that follows: rows per device, batches to accumulate, and how it was found."""

    per_device: int
    accumulation: int
    found: dict[str, Any] | None = None


class TuningStages:
    """The stages of a tuning run in its folder; each finds what an earlier start left.

    Raises:
        ValueError: the sample is too small, or the model cannot be loaded.
    """

    def __init__(
        self,
        data: ClassificationData,
        model_args: ModelArguments,
        args: TuneConfig,
    ) -> None:
        self.data, self.model_args, self.args = data, model_args, args
        self.folder = Path(str(args.output_dir))
        _, self.tokenizer = self._load()
        self.sample, self.held_out = self._sampled()

    # The batch size

    def batch(self, search: bool) -> Batch:
        """The batch found before, or now if `search`; else what the arguments say."""
        args, path = self.args, self.folder / BATCH_NAME
        if (known := read_batch(self.folder)) is not None:
            return known
        if not search:
            return Batch(args.per_device_train_batch_size, args.gradient_accumulation_steps)
        share = args.per_device_train_batch_size * args.gradient_accumulation_steps
        with tempfile.TemporaryDirectory() as scratch:
            found = find_batch_size(
                self._trainer_of_rows,
                self._arguments(scratch),
                self._tokenised(self.data.train),
                at_most=args.largest_batch_size or max(1, share // args.run_processes),
                margin=args.memory_margin,
                memory_limit=None if args.memory_limit is None else int(args.memory_limit * 2**30),
                processes=args.run_processes,
            )
        kept = keep_global_batch(share, largest=found.rows, processes=args.run_processes)
        batch = Batch(*kept, asdict(found))
        write_atomic(path, json.dumps(asdict(batch), indent=2) + "\n")
        return batch

    def _trainer_of_rows(self, args: Any, rows: Any) -> RoundSelectionTrainer:
        model, _ = self._load()
        return RoundSelectionTrainer(
            model, args, train_dataset=rows, data_collator=DataCollatorWithPadding(self.tokenizer), strategy="all"
        )

    # The search

    def search(self, batch: Batch) -> Tuning:
        """Take trials of the study until all have ended, and write the best values, for any recipe that trains."""
        args = self.args
        with tempfile.TemporaryDirectory() as scratch:
            found = tune(
                self._trainer_of_trials(batch, scratch),
                self.folder,
                space=args.space(),
                trials=args.trials,
                sampler=args.sampler,
                objective=args.objective,
                greater_is_better=args.maximises,
                prune=args.prune,
                seed=args.seed,
                about={"batch": batch.per_device * batch.accumulation, **self._about()},
                on_trial=self._tell,
            )
        self._write_best(found, batch)
        write_atomic(self.folder / TRIALS_NAME, json.dumps(to_plain(asdict(found)), indent=2) + "\n")
        return found

    def _about(self) -> dict[str, Any]:
        args = self.args
        return {
            "data": self.data.fingerprint,
            "model": self.model_args.model_name_or_path,
            "max_length": self.model_args.max_length,
            "sample": args.sample,
            "held_out": args.held_out,
            "trial_epochs": args.trial_epochs,
        }

    def _trainer_of_trials(self, batch: Batch, scratch: str) -> RoundSelectionTrainer:
        args = self._arguments(
            scratch,
            num_train_epochs=self.args.trial_epochs,
            max_steps=-1,
            per_device_train_batch_size=batch.per_device,
            gradient_accumulation_steps=batch.accumulation,
            eval_strategy="steps" if self.args.prune else "epoch",
            eval_steps=1 / _EVALUATIONS,
            save_strategy="no",
            load_best_model_at_end=False,
        )
        trainer = RoundSelectionTrainer(
            None,
            args,
            model_init=lambda: self._load()[0],
            strategy="all",
            train_dataset=self._tokenised(self.sample),
            eval_dataset=self._tokenised(self.held_out),
            data_collator=DataCollatorWithPadding(self.tokenizer),
            compute_metrics=ClassificationMetrics(),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    def _tell(self, row: dict[str, Any]) -> None:
        objective = self.args.objective
        score = row["state"] if row[objective] is None else f"{objective} {row[objective]:.4f}"
        values = ", ".join(f"{name} {_short(row[name])}" for name in self.args.space())
        print(
            f"trial {row['trial'] + 1} of {self.args.trials}: {score} ({values}), {row['seconds']:.0f} s", flush=True
        )

    def _write_best(self, found: Tuning, batch: Batch) -> None:
        values: dict[str, Any] = {
            "per_device_train_batch_size": batch.per_device,
            "gradient_accumulation_steps": batch.accumulation,
            **found.best,
        }
        head = (
            f"# The best of {len(found.trials)} trials: {self.args.objective} {found.value:.4f} on held-out rows of "
            f"train.\n# For any recipe that trains: tithe data_selection --config mine.yaml --config {BEST_NAME}\n"
        )
        write_atomic(self.folder / BEST_NAME, head + yaml.dump(values, Dumper=RunDumper, sort_keys=False))

    # What both need

    def _load(self) -> tuple[Any, Any]:
        return load_classifier(self.model_args, self.data, self.folder / "initial_model", self.args.seed)

    def _arguments(self, scratch: str, **changes: Any) -> Any:
        """Arguments for a trainer beside the main run's: silent, and writing into `scratch`."""
        args = copy.copy(self.args)
        quiet = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "push_to_hub": False}
        for name, value in {**quiet, "proxy": None, "output_dir": scratch, **changes}.items():
            setattr(args, name, value)
        return args

    def _tokenised(self, rows: Dataset) -> Dataset:
        return tokenise(rows, self.tokenizer, self.model_args.max_length)

    def _sampled(self) -> tuple[Dataset, Dataset]:
        """A stratified sample of train, in what trials train on and what they are scored on: no text is in both."""
        train, args = self.data.train, self.args
        labels = np.asarray(train["label"][:])
        rng = np.random.default_rng([args.seed, 15])
        rows = stratified_sample(labels, max(2, round(args.sample * len(labels))), rng)
        columns = [name for name in ("text", "text_pair") if name in train.column_names]
        texts = ["\x1f".join(parts) for parts in zip(*(train[rows][name] for name in columns), strict=True)]
        held_out = carve(np.unique(texts, return_inverse=True)[1], labels[rows], args.held_out, rng)
        if not held_out.any():
            raise ValueError(
                f"`sample` {args.sample} of {len(labels)} rows has no class with two texts, of which one could be "
                "held out: raise it"
            )
        return train.select(rows[~held_out]), train.select(rows[held_out])


def take_device(args: TuneConfig) -> list[str]:
    """The GPUs of the processes that search; of several this one takes the first. To be called before any is used."""
    devices = [] if args.use_cpu or args.processes == 1 else visible_devices()
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[0]
    return devices


@contextmanager
def helpers(args: TuneConfig, flags: Sequence[str], devices: Sequence[str] = ()) -> Iterator[None]:
    """Further processes that search, `args.processes` with this one; they are ended if the block is broken off.

    Args:
        flags: of this process; the helpers get them, too.
        devices: names of the GPUs to share out.
    """
    if args.processes == 1:
        yield
        return
    started = []
    for number in range(1, args.processes):
        environment = run_environment(args.processes, devices[number % len(devices)] if devices else None)
        command = [sys.executable, "-m", "tithe.recipes.tune", *flags, "--stages", SEARCH, "--processes", "1"]
        started.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
    try:
        with stopped_by_signals():
            yield
            for process in started:
                process.wait()
    finally:
        for process in started:
            process.terminate()


def read_tuning(folder: Path) -> Tuning:
    """What the search in `folder` came to."""
    found = json.loads((folder / TRIALS_NAME).read_text(encoding="utf-8"))
    curves = {int(n): {int(s): value for s, value in curve.items()} for n, curve in found.pop("curves").items()}
    return Tuning(**found, curves=curves)


def read_batch(folder: Path) -> Batch | None:
    """The batch that was found in `folder`, if one was."""
    path = folder / BATCH_NAME
    return Batch(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(map(_short, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
