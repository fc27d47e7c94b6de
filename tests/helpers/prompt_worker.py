"""What the tests of prompt tuning in several processes run: `python … prompt_worker.py SETTINGS.json`."""

import json
import sys
from pathlib import Path

import prompting
from killing import Kill
from safetensors.torch import load_file, save_file
from transformers import T5ForConditionalGeneration

from tithe.recipes.processes import end_processes
from tithe.trainers import PTSeq2SeqConfig, PTSeq2SeqTrainer, last_finished_checkpoint


def main(settings):
    out = Path(settings["output_dir"])
    args = PTSeq2SeqConfig(**settings["args"], output_dir=str(out), use_cpu=True, report_to="none")
    # From a folder, as users load it: under ZeRO-3 the weights are then spread over the processes from the start.
    model = T5ForConditionalGeneration.from_pretrained(settings["base"], dropout_rate=settings["dropout"])
    trainer = PTSeq2SeqTrainer(
        model,
        args,
        train_dataset=prompting.make_rows(32),
        eval_dataset=prompting.make_rows(10, seed=1),
        processing_class=prompting.make_tokenizer(),
        callbacks=[Kill(settings["kill"])] if "kill" in settings else None,
    )
    last = last_finished_checkpoint(out)
    trainer.train(str(last) if last else None)
    trainer.save_model(str(out / "final"))
    predictions = trainer.predict(trainer.eval_dataset, max_length=7, num_beams=2).predictions.tolist()
    if args.process_index == 0:
        tensors = load_file(out / "final" / "adapter_model.safetensors")
        save_file(dict(sorted(tensors.items())), out / "adapters.safetensors")
        log = [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]
        (out / "log.json").write_text(json.dumps(log))
        (out / "predictions.json").write_text(json.dumps(predictions))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    end_processes()
