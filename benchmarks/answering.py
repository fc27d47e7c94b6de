"""Answers of a small causal model by `generate_answers`, beside two ways without it, in one run at one thread.

    python benchmarks/answering.py
    python benchmarks/answering.py --prompts 128 --looped 16 --json answering.json

The model has the shape of SmolLM2-135M and random weights, drawn widely enough that it does not repeat itself. Every
eighth word of its vocabulary ends a line, which is the stop rule: answers have about 8 tokens, of at most 64, as short
factual ones do. "none" are prompts of a short question, "retrieved" those of about 500 tokens, 150 of which, the
instructions, are the same in all.

(a) loop: a prompt at a time in float32, always to the full length, cut at the stop rule afterwards. To reach: a tenth
    of its CPU seconds per prompt without context, a quarter with.
(b) batches: `model.generate` in bfloat16 on batches of like length, with the same stop rule; the better of several
    batch sizes counts. To reach: 1.2 times less.

In float32 our texts must be those of (a), character by character. In bfloat16 a random model's texts soon part, so
that (b) and ours have answers of other lengths: the means are shown.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, StoppingCriteriaList, set_seed

from tithe.evaluation import environment, write_results
from tithe.models import computing_in, evaluating, generate_answers
from tithe.models.answer_log import read_log


VOCABULARY, PAD, EOS, END_OF_LINE = 49152, 0, 1, 8
TARGETS = {"none": 10.0, "retrieved": 4.0}
AGAINST_BATCHES = 1.2
SHARED, QUESTION, CONTEXT = 150, (8, 30), (280, 380)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A token is a word; every eighth ends a line."""
    words = [f"w{token}" + "\n" * (token % END_OF_LINE == 7) for token in range(2, VOCABULARY)]
    vocabulary = {word: token for token, word in enumerate(["<pad>", "<eos>", *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.decoder = decoders.Sequence([decoders.Replace("w", " w"), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>", padding_side="left")


def make_model(options: argparse.Namespace) -> Any:
    """The shape of SmolLM2-135M."""
    set_seed(0)
    sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": options.layers}
    sizes |= {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192}
    tokens = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": None, "eos_token_id": EOS}
    config = LlamaConfig(**sizes, **tokens, tie_word_embeddings=True, initializer_range=0.06)
    return LlamaForCausalLM(config).eval()


def make_prompts(kind: str, count: int) -> list[str]:
    rng = np.random.default_rng(0)

    def words(number: int) -> str:
        tokens = rng.integers(2, VOCABULARY // END_OF_LINE, number) * END_OF_LINE  # none that ends a line
        return " ".join(f"w{token}" for token in tokens)

    shared = words(SHARED) + " " if kind == "retrieved" else ""
    between = CONTEXT if kind == "retrieved" else QUESTION
    return [shared + words(int(rng.integers(*between))) for _ in range(count)]


def cut(text: str) -> str:
    return text.split("\n", 1)[0].strip()


@torch.no_grad()
def looped(model: Any, tokenizer: Any, prompts: list[str], most: int) -> list[str]:
    texts = []
    for prompt in prompts:
        batch = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        new = model.generate(**batch, do_sample=False, max_new_tokens=most, min_new_tokens=most)
        texts.append(cut(tokenizer.decode(new[0, batch["input_ids"].shape[1] :], skip_special_tokens=True)))
    return texts


def ends_line(ids: torch.Tensor, scores: torch.Tensor, **options: Any) -> torch.Tensor:
    """The stop rule by token, which costs (b) nothing; ours looks for the string in the text."""
    return ids[:, -1] % END_OF_LINE == END_OF_LINE - 1


@torch.no_grad()
def batched(model: Any, tokenizer: Any, prompts: list[str], most: int, size: int) -> list[str]:
    texts = [""] * len(prompts)
    ids = tokenizer(prompts)["input_ids"]
    order = sorted(range(len(prompts)), key=lambda row: -len(ids[row]))
    with evaluating(model), computing_in(model, torch.bfloat16):
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
            rule = StoppingCriteriaList([ends_line])
            new = model.generate(**batch, do_sample=False, max_new_tokens=most, stopping_criteria=rule)
            new = new[:, batch["input_ids"].shape[1] :]
            for row, text in zip(rows, tokenizer.batch_decode(new, skip_special_tokens=True), strict=True):
                texts[row] = cut(text)
    return texts


def timed(work: Callable[[], list[str]]) -> tuple[float, list[str]]:
    start = time.process_time()
    texts = work()
    return time.process_time() - start, texts


def tokens_of(texts: list[str]) -> float:
    """The mean number of tokens; the one with the stop string counts."""
    return float(np.mean([len(text.split()) for text in texts]))


def measure(kind: str, model: Any, tokenizer: Any, options: argparse.Namespace) -> dict[str, Any]:
    most, prompts = options.max_new_tokens, make_prompts(kind, options.prompts)
    first = prompts[: options.looped]
    settings: dict[str, Any] = {"max_new_tokens": most, "progress": False}
    loop_seconds, loop_texts = timed(lambda: looped(model, tokenizer, first, most))
    exact = generate_answers(model, tokenizer, first, dtype=None, **settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        seconds, texts = timed(lambda: generate_answers(model, tokenizer, prompts, path, **settings))
        generated = [entry["generated_tokens"] for entry in read_log(path, "answer").values()]
    found = {size: timed(lambda size=size: batched(model, tokenizer, prompts, most, size)) for size in options.sizes}
    best = min(found, key=lambda size: found[size][0])
    loop, ours, batches = loop_seconds / len(first), seconds / len(prompts), found[best][0] / len(prompts)
    return {
        "context": kind,
        "prompts": f"{len(prompts)} ({len(first)} looped)",
        "prompt_tokens": float(np.mean([len(prompt.split()) for prompt in prompts])),
        "answer_tokens": float(np.mean(generated)),
        "batches_answer_tokens": tokens_of(found[best][1]),
        "ours_cpu_s": ours,
        "loop_cpu_s": loop,
        "batches_cpu_s": {size: found[size][0] / len(prompts) for size in found},
        "best_batch": best,
        "of_loop": loop / ours,
        "of_loop_target": TARGETS[kind],
        "of_batches": batches / ours,
        "of_batches_target": AGAINST_BATCHES,
        "float32_identical": sum(one == other for one, other in zip(exact, loop_texts, strict=True)) / len(first),
    }


def show(row: dict[str, Any]) -> None:
    print(f"{row['context']}: {row['prompts']} prompts of {row['prompt_tokens']:.0f} tokens on average")
    print(f"  ours      {row['ours_cpu_s']:7.3f} CPU s a prompt, answers of {row['answer_tokens']:.1f} tokens")
    print(
        f"  (a) loop  {row['loop_cpu_s']:7.3f}   {row['of_loop']:5.1f} × ours (to reach {row['of_loop_target']:g}), "
        f"float32 texts identical: {row['float32_identical']:.0%}"
    )
    sizes = ", ".join(f"{size}: {seconds:.3f}" for size, seconds in row["batches_cpu_s"].items())
    print(
        f"  (b) batch {row['batches_cpu_s'][row['best_batch']]:7.3f}   {row['of_batches']:5.2f} × ours (to reach "
        f"{row['of_batches_target']:g}), answers of {row['batches_answer_tokens']:.1f} tokens; by batch size {sizes}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32, help="for ours and (b)")
    parser.add_argument("--looped", type=int, default=5, help="how many of them for (a)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 24], help="batch sizes of (b)")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--contexts", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = make_model(options), make_tokenizer()
    for dtype in ("bfloat16", None):  # the first calls load what is loaded lazily
        generate_answers(model, tokenizer, ["w8 w16"] * 2, max_new_tokens=2, dtype=dtype, progress=False)
    batched(model, tokenizer, ["w8 w16"] * 2, 2, 2)
    rows = []
    for kind in options.contexts:
        rows.append(measure(kind, model, tokenizer, options))
        show(rows[-1])
    if options.json:
        write_results(options.json, {"rows": rows, "environment": environment()})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
