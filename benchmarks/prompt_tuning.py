"""A training step with LoRA and a soft prompt beside one with PEFT's LoRA alone, on the same model, in one run.

    python benchmarks/prompt_tuning.py
    python benchmarks/prompt_tuning.py --quick

Both sides step in turns, on the same batches, at one thread; the median of the turns' ratios of CPU seconds counts.
The prompt makes the encoder's input longer: of the tokens that the model reads and writes its share is virtual tokens
/ (input + output tokens). To reach: that share + 3 % at most. The weights are random: they do not change what a step
costs.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import BartConfig, BartForConditionalGeneration, T5Config, T5ForConditionalGeneration, set_seed

from tithe.evaluation import environment, write_results
from tithe.models import add_lora_and_prompt


ROWS, RANK, ALLOWED = 8, 8, 0.03


def t5() -> Any:
    """The shape of T5-small."""
    sizes = {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
    config = T5Config(vocab_size=32128, **sizes)
    config.decoder_start_token_id = 0
    return T5ForConditionalGeneration(config)


def bart() -> Any:
    """Half of BART-base."""
    layers = {"encoder_layers": 3, "decoder_layers": 3, "encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
    heads = {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
    return BartForConditionalGeneration(BartConfig(vocab_size=32128, d_model=768, **layers, **heads))


MODELS: dict[str, tuple[Callable[[], Any], list[str]]] = {"T5": (t5, ["q", "v"]), "BART": (bart, ["q_proj", "v_proj"])}


def stepper(model: Any, batches: list[dict[str, torch.Tensor]]) -> Callable[[int], float]:
    """A function that does a step on one of the batches and returns its CPU seconds."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)

    def step(number: int) -> float:
        start = time.process_time()
        model(**batches[number % len(batches)]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return time.process_time() - start

    return step


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    make, targets = MODELS[name]
    set_seed(0)
    base = make()
    batches = [
        {
            "input_ids": torch.randint(3, 32000, (ROWS, options.input)),
            "attention_mask": torch.ones(ROWS, options.input, dtype=torch.long),
            "labels": torch.randint(3, 32000, (ROWS, options.output)),
        }
        for _ in range(4)
    ]
    lora = LoraConfig(task_type="SEQ_2_SEQ_LM", r=RANK, lora_alpha=2 * RANK, target_modules=targets)
    plain = stepper(get_peft_model(copy.deepcopy(base), lora), batches)
    ours = stepper(add_lora_and_prompt(base, rank=RANK, virtual_tokens=options.virtual_tokens), batches)
    pairs = []
    for number in range(options.steps + 2):
        first, second = (ours, plain) if number % 2 else (plain, ours)
        seconds = {first: first(number), second: second(number)}
        pairs.append((seconds[ours], seconds[plain]))
    pairs = pairs[2:]  # the first of each cost extra
    ratio = statistics.median(one / other for one, other in pairs)
    share = options.virtual_tokens / (options.input + options.output)
    return {
        "model": name,
        "tokens": f"{options.virtual_tokens} + {options.input} in, {options.output} out",
        "ours_cpu_s": statistics.median(one for one, _ in pairs),
        "peft_lora_cpu_s": statistics.median(other for _, other in pairs),
        "more": ratio - 1,
        "allowed": share + ALLOWED,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=int, default=100)
    parser.add_argument("--output", type=int, default=40)
    parser.add_argument("--virtual_tokens", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="fewer steps")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    options = parser.parse_args()
    if options.quick:
        options.steps = 6
    torch.set_num_threads(1)
    rows = [measure(name, options) for name in MODELS]
    print(f"{'model':8}{'tokens':>26}{'ours, CPU s':>14}{'LoRA alone, CPU s':>20}{'more':>9}{'at most':>9}")
    for row in rows:
        print(
            f"{row['model']:8}{row['tokens']:>26}{row['ours_cpu_s']:14.3f}{row['peft_lora_cpu_s']:20.3f}"
            f"{row['more']:+9.1%}{row['allowed']:+9.1%}"
        )
    if options.json:
        write_results(options.json, {"rows": rows, "environment": environment()})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
