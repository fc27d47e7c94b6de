"""What the tests of layouts run, one trainer in one or more processes: `python … layout_worker.py SETTINGS.json`.

`trainer` says which; a model is read from a folder, in 8 bits with LoRA if `quantised`. Each process leaves its facts,
such as losses and gradient norms and what was chosen, and all together the model in `final`.
"""

import json
import sys
from pathlib import Path

import distilling
import numpy as np
import prompting
import tiny
import torch
from killing import Kill
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, BitsAndBytesConfig

from tithe.recipes.processes import end_processes
from tithe.trainers import (
    DistillationConfig,
    DistillationTrainer,
    ExpertLoopConfig,
    ExpertLoopTrainer,
    PTSeq2SeqConfig,
    PTSeq2SeqTrainer,
    RoundSelectionConfig,
    RoundSelectionTrainer,
    last_finished_checkpoint,
)


CONFIGS = {
    "selection": (RoundSelectionConfig, {"budget": 32, "strategy": "margin_coverage", "rounds": 2}),
    "distillation": (DistillationConfig, {}),
    "loop": (
        ExpertLoopConfig,
        {"initial_pool_size": 16, "query_size": 16, "max_iterations": 1, "iteration_start": "warm"},
    ),
    "prompt": (PTSeq2SeqConfig, {"lora_rank": 4, "virtual_tokens": 3}),
}


def load(settings):
    """The base in its folder; quantised, with LoRA, which a prompt trainer adds by itself."""
    auto = AutoModelForSeq2SeqLM if settings["trainer"] == "prompt" else AutoModelForSequenceClassification
    if not settings.get("quantised"):
        return auto.from_pretrained(settings["base"])
    bits = BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["classifier", "lm_head"])
    model = auto.from_pretrained(settings["base"], quantization_config=bits, device_map="cpu")
    if settings["trainer"] == "prompt":
        return model
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=["classifier"])
    return get_peft_model(prepare_model_for_kbit_training(model, use_gradient_checkpointing=False), lora)


def make(settings, out):
    kind = settings["trainer"]
    config, own = CONFIGS[kind]
    args = config(**own | settings["args"], output_dir=str(out), use_cpu=True, report_to="none", disable_tqdm=True)
    common = {"callbacks": [Kill(**settings["kill"])] if "kill" in settings else None}
    if kind == "prompt":
        rows = {"train_dataset": prompting.make_rows(32), "eval_dataset": prompting.make_rows(8, seed=1)}
        return PTSeq2SeqTrainer(load(settings), args, processing_class=prompting.make_tokenizer(), **rows, **common)
    common |= {"data_collator": tiny.collate, "train_dataset": tiny.make_pool(32 if kind == "distillation" else 64)}
    common |= {"eval_dataset": tiny.make_pool(8, seed=7)}
    if kind == "selection":
        return RoundSelectionTrainer(load(settings), args, **common)
    teachers = [distilling.sharpened(tiny.make_model(seed=seed)) for seed in (1, 2)]
    trainer = DistillationTrainer if kind == "distillation" else ExpertLoopTrainer
    return trainer(load(settings), args, teachers=teachers, **common)


def main(settings):
    out = Path(settings["output_dir"])
    trainer = make(settings, out)
    if settings.get("evaluates_first"):
        trainer.evaluate()
    last = last_finished_checkpoint(out)
    trainer.train(str(last) if last else None)
    scores = trainer.evaluate()
    trainer.save_model(str(out / "final"))
    chosen = {"selection": lambda: trainer.ledger.selected.tolist(), "loop": lambda: trainer.answers.entries}
    facts = {
        "chosen": chosen.get(settings["trainer"], lambda: None)(),
        "processes": trainer.args.world_size,
        "engine": type(trainer.model_wrapped).__name__,
        "evaluation": scores["eval_loss"],
        "log": [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry],
    }
    (out / f"facts-{trainer.args.process_index}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main(json.loads(Path(sys.argv[1]).read_text()))
    end_processes()
