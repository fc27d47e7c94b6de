"""What the test of answers in several processes runs: `python … answer_worker.py SETTINGS.json`."""

import json
import sys
from pathlib import Path

import answerers
from accelerate import PartialState

from tithe.models import generate_answers
from tithe.recipes.processes import end_processes


def main(settings):
    out, state = Path(settings["output_dir"]), PartialState(cpu=True)
    tokenizer = answerers.make_tokenizer()
    model = answerers.make_model("llama", tokenizer)
    rows, passes = [], []

    def note(module, args, kwargs):
        ids = kwargs["input_ids"]
        passes.append(ids.shape[1])
        if ids.shape[1] > 1:
            rows.append(len(ids))
        if settings.get("fail") and len(passes) > 4 + state.process_index:
            raise KeyboardInterrupt

    model.register_forward_pre_hook(note, with_kwargs=True)
    options = {"max_new_tokens": 8, "stop": ("v", "t t"), "batch_size": 3, "dtype": None, "progress": False}
    options |= {"temperature": settings["temperature"]}
    found = generate_answers(model, tokenizer, answerers.PROMPTS, out / "log.jsonl", **options)
    (out / f"answers{state.process_index}.json").write_text(json.dumps(found))
    (out / f"rows{state.process_index}.json").write_text(json.dumps(sum(rows)))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
    end_processes()
