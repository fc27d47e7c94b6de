"""Perplexity of a pool at one thread: length-sorted, token-budgeted batches against what people usually run.

    python benchmarks/language_scores.py
    python benchmarks/language_scores.py --kind masked --texts 60 --output masked.json

The model has random weights (speed does not depend on them); texts are as long as rotten_tomatoes' reviews, whose
lengths in words are close to a log-normal with median 19 and mean 21. Peers are loops over plain Transformers calls,
side by side in this run: one text at a time; and batches of 16 in the order of the data, padded to the longest, with
all logits, as the `perplexity` metric of `evaluate` has them. For a masked model: one mask at a time, a forward pass
each; and a text's masks as one batch. CPU seconds of the process, tokenisation included.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tithe.models.language_scores import read_language_scores


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "mask_token": "<mask>"}
PAD, BOS, EOS, MASK = range(4)


def make_tokenizer(vocabulary: int, kind: str) -> PreTrainedTokenizerFast:
    tokens = [*SPECIAL.values(), *(f"w{i}" for i in range(vocabulary - len(SPECIAL)))]
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = "<s> $A </s>" if kind == "masked" else "<s> $A"
    core.post_processor = processors.TemplateProcessing(single=around, special_tokens=[("<s>", BOS), ("</s>", EOS)])
    return PreTrainedTokenizerFast(tokenizer_object=core, **SPECIAL)


def make_model(vocabulary: int, kind: str, layers: int, width: int) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": vocabulary, "hidden_size": width, "num_hidden_layers": layers}
    sizes |= {"num_attention_heads": width // 64, "intermediate_size": 4 * width, "max_position_embeddings": 512}
    sizes |= {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    if kind == "masked":
        return BertForMaskedLM(BertConfig(**sizes)).eval()
    return LlamaForCausalLM(LlamaConfig(**sizes, tie_word_embeddings=True)).eval()


def make_texts(count: int, vocabulary: int) -> list[str]:
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(19), 0.5, count), 1, 59).round().astype(int)
    return [" ".join(f"w{i}" for i in rng.integers(0, vocabulary - len(SPECIAL), n)) for n in lengths]


def causal_one_by_one(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    losses = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        losses.append(float(model(input_ids=ids, labels=ids).loss))
    return np.array(losses)


def causal_padded(model: Any, tokenizer: Any, texts: list[str], size: int = 16) -> np.ndarray:
    losses = []
    for start in range(0, len(texts), size):
        batch = tokenizer(texts[start : start + size], padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        logits = model(input_ids=batch["input_ids"], attention_mask=mask).logits[:, :-1]
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none")
        losses.append((each * mask[:, 1:]).sum(1) / mask[:, 1:].sum(1))
    return torch.cat(losses).numpy()


def masked_logits(model: Any, ids: torch.Tensor, places: range) -> float:
    """The mean loss over `places` of one text, with as many copies of it in one call."""
    copies = ids.repeat(len(places), 1)
    rows, columns = torch.arange(len(places)), torch.tensor(list(places))
    copies[rows, columns] = MASK
    logits = model(input_ids=copies).logits[rows, columns]
    return float(torch.nn.functional.cross_entropy(logits, ids[0, columns]))


def masked_one_by_one(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    losses = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        each = [masked_logits(model, ids, range(i, i + 1)) for i in range(1, ids.shape[1] - 1)]
        losses.append(np.mean(each))
    return np.array(losses)


def masked_by_text(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    losses = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        losses.append(masked_logits(model, ids, range(1, ids.shape[1] - 1)))
    return np.array(losses)


PEERS: dict[str, dict[str, Callable[..., np.ndarray]]] = {
    "causal": {"one text at a time": causal_one_by_one, "padded batches of 16, unsorted": causal_padded},
    "masked": {"one mask at a time": masked_one_by_one, "one text's masks at a time": masked_by_text},
}


def seconds(run: Callable[[], np.ndarray], repeats: int) -> tuple[float, np.ndarray]:
    best, values = float("inf"), np.empty(0)
    for _ in range(repeats):
        start = time.process_time()
        values = run()
        best = min(best, time.process_time() - start)
    return best, values


def measure(
    kind: str, count: int, vocabulary: int, layers: int, width: int, batch_tokens: int | None, repeats: int
) -> list[dict[str, Any]]:
    """Ours against each peer on the same texts; the fastest of `repeats` counts for both."""
    tokenizer, model = make_tokenizer(vocabulary, kind), make_model(vocabulary, kind, layers, width)
    texts = make_texts(count, vocabulary)
    tokens = sum(len(text.split()) for text in texts)
    size = f"{count} texts, {tokens} tokens, {sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters, "
    size += f"vocabulary {vocabulary}"

    def ours() -> np.ndarray:
        scores = read_language_scores(model, tokenizer, texts, {"perplexity"}, batch_tokens=batch_tokens)
        return scores["perplexity"]

    results = []
    with torch.no_grad():
        read_language_scores(model, tokenizer, texts[:4], {"perplexity"})  # a process's first products cost extra
        own, values = seconds(ours, repeats)
        for name, peer in PEERS[kind].items():
            theirs, expected = seconds(lambda peer=peer: peer(model, tokenizer, texts), repeats)  # type: ignore[misc]
            results.append(
                {
                    "work": f"perplexity, {kind}",
                    "size": size,
                    "ours_cpu_s": own,
                    "peer": name,
                    "peer_cpu_s": theirs,
                    "ratio": theirs / own,
                    "agreement": float(np.abs(values - expected).max()),
                    "extrapolated": False,
                    "ours_tokens_per_s": tokens / own,
                    "peer_tokens_per_s": tokens / theirs,
                }
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="perplexity of a pool against plain loops, one thread")
    parser.add_argument("--kind", choices=list(PEERS), default="causal")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int, help="by default what the function takes")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path, help="JSON file to write the results to")
    args = parser.parse_args()
    if any(os.environ.get(name) != "1" for name in THREADS):  # read once, when the libraries are loaded
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict.fromkeys(THREADS, "1"))
    torch.set_num_threads(1)
    results = measure(args.kind, args.texts, args.vocabulary, args.layers, args.width, args.batch_tokens, args.repeats)
    print(results[0]["size"])
    print(f"{'':34}{'CPU s':>9}{'tokens/s':>11}{'ratio':>8}{'max difference':>16}")
    print(f"{'tithe':34}{results[0]['ours_cpu_s']:9.2f}{results[0]['ours_tokens_per_s']:11.0f}")
    for r in results:
        print(
            f"{r['peer']:34}{r['peer_cpu_s']:9.2f}{r['peer_tokens_per_s']:11.0f}{r['ratio']:7.2f}x{r['agreement']:16.1e}"
        )
    if args.output:
        versions = {"python": platform.python_version(), "machine": platform.machine()}
        versions |= {module.__name__: module.__version__ for module in (np, torch, transformers)}
        args.output.write_text(json.dumps({"results": results, "environment": versions}, indent=2))


if __name__ == "__main__":
    main()
