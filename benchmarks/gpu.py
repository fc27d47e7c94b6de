"""What the library costs on a GPU, in one command and without a network: weights are random, data are made up.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --only trainers generation --json gpu.json
    python benchmarks/gpu.py --tiny                        # every part at a small size, on the CPU, too: a try

`trainers`: steps a second of each trainer in bf16 against a bare loop over the same batches (model, autocast, fused
AdamW and nothing else; for distillation with a frozen teacher and the Kullback-Leibler loss), without `torch.compile`
and with it, and the highest memory of each. `bits`: a LoRA step on a causal model held in bf16, 8 and 4 bits.
`reading`: rows a second of `read_signals` against a bare forward loop. `picks`: k-centre over a million rows of 768
values; it runs on the CPU. `generation`: `generate_answers` against sorted batches of `generate`.

Sides take turns, the median of the turns' ratios counts; GPU work is waited for before a clock is read.
"""

import argparse
import copy
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BitsAndBytesConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    TrainerCallback,
    set_seed,
)
from transformers.utils import is_bitsandbytes_available

from tithe.evaluation import environment, write_results
from tithe.models import add_lora_and_prompt, generate_answers, read_signals
from tithe.selection import k_center_greedy
from tithe.trainers import (
    DistillationConfig,
    DistillationTrainer,
    ExpertLoopConfig,
    ExpertLoopTrainer,
    PTSeq2SeqConfig,
    PTSeq2SeqTrainer,
    RoundSelectionConfig,
    RoundSelectionTrainer,
)


PARTS = ("trainers", "bits", "reading", "picks", "generation")
CLASSES, WARM_UP = 4, 5
CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


class Sizes:
    """Of models and data: BERT-base, T5-base and SmolLM2-135M in shape, or next to nothing."""

    def __init__(self, tiny: bool) -> None:
        self.width, self.layers, self.heads = (64, 2, 2) if tiny else (768, 12, 12)
        self.vocabulary, self.tokens, self.batch = (500, 16, 4) if tiny else (30000, 128, 32)
        self.steps, self.turns, self.rows = (4, 1, 64) if tiny else (60, 3, 20_000)
        self.pool, self.dimensions, self.picks = (2_000, 64, 100) if tiny else (1_000_000, 768, 10_000)
        self.prompts, self.answer = (8, 8) if tiny else (512, 64)

    def bert(self, layers: int | None = None) -> Any:
        set_seed(0)
        config = BertConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            num_hidden_layers=layers or self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.width,
            num_labels=CLASSES,
        )
        return BertForSequenceClassification(config)

    def t5(self) -> Any:
        set_seed(0)
        config = T5Config(
            vocab_size=self.vocabulary,
            d_model=self.width,
            d_kv=self.width // self.heads,
            d_ff=4 * self.width,
            num_layers=self.layers,
            num_heads=self.heads,
        )
        config.decoder_start_token_id = 0
        return T5ForConditionalGeneration(config)

    def llama(self) -> Any:
        set_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=2048,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        return LlamaForCausalLM(config)

    def data(self, rows: int, labels: str) -> Dataset:
        """Rows of one length, so that all sides see the same; `labels` are of classes, or tokens."""
        rng = np.random.default_rng(0)
        ids = rng.integers(5, self.vocabulary, (rows, self.tokens)).tolist()
        wanted = rng.integers(0, CLASSES, rows).tolist() if labels == "classes" else ids
        return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * self.tokens] * rows, "labels": wanted})


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([row[name] for row in rows]) for name in ("input_ids", "attention_mask", "labels")}


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


@contextmanager
def peak() -> Iterator[dict[str, float]]:
    """The highest memory of the GPU inside, in GiB, under `gib`; NaN on a CPU."""
    gc.collect()
    found = {"gib": float("nan")}
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    yield found
    if CUDA:
        found["gib"] = torch.cuda.max_memory_allocated() / 2**30


class Clock(TrainerCallback):
    """Seconds of all steps after the first few."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == WARM_UP:
            wait()
            self.start = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wait()
        self.seconds = (time.perf_counter() - self.start) / (state.global_step - WARM_UP)


def in_turns(turns: int, ours: Callable[[], float], theirs: Callable[[], float]) -> dict[str, float]:
    """Both medians in seconds, and the median of theirs / ours."""
    pairs = []
    for turn in range(turns):
        pairs.append((ours(), theirs()) if turn % 2 == 0 else (theirs(), ours())[::-1])
    first, second = zip(*pairs, strict=True)
    ratio = statistics.median(b / a for a, b in pairs)
    return {"ours_s": statistics.median(first), "bare_s": statistics.median(second), "ratio": ratio}


# Trainers


def by_trainer(sizes: Sizes, kind: str, compiled: bool) -> float:
    """Seconds a step."""
    steps, clock = sizes.steps + WARM_UP, Clock()
    with tempfile.TemporaryDirectory() as folder:
        common = {"output_dir": folder, "bf16": CUDA, "use_cpu": not CUDA, "report_to": "none", "disable_tqdm": True}
        common |= {"per_device_train_batch_size": sizes.batch, "torch_compile": compiled, "save_strategy": "no"}
        common |= {"logging_steps": 10**6, "optim": "adamw_torch_fused", "max_steps": steps, "num_train_epochs": 2}
        rows = steps * sizes.batch
        given: dict[str, Any] = {"callbacks": [clock], "data_collator": collate}
        if kind == "selection":
            config = RoundSelectionConfig(**common, strategy="random", rounds=1, budget=float(rows // 2))
            trainer: Any = RoundSelectionTrainer
        elif kind == "distillation":
            config, trainer = DistillationConfig(**common), DistillationTrainer
            given["teachers"] = [sizes.bert()]
        elif kind == "loop":
            config = ExpertLoopConfig(
                **common, initial_pool_size=rows // 2, query_size=1, max_iterations=0, query_strategy="random"
            )
            trainer = ExpertLoopTrainer
        else:
            config, trainer = PTSeq2SeqConfig(**common, lora_rank=8, virtual_tokens=20), PTSeq2SeqTrainer
        model = sizes.t5() if kind == "prompt" else sizes.bert(max(1, sizes.layers // 2))
        data = sizes.data(rows, "tokens" if kind == "prompt" else "classes")
        trainer(model, config, train_dataset=data, **given).train()
    return clock.seconds


def bare(sizes: Sizes, kind: str, compiled: bool) -> float:
    """Seconds a step of the shortest loop that does the same."""
    model = sizes.t5() if kind == "prompt" else sizes.bert(max(1, sizes.layers // 2))
    if kind == "prompt":
        model = add_lora_and_prompt(model, rank=8, virtual_tokens=20)
    model = model.to(DEVICE).train()
    teacher = sizes.bert().to(DEVICE).eval().requires_grad_(False) if kind == "distillation" else None
    run = torch.compile(model) if compiled else model
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)
    data = sizes.data(8 * sizes.batch, "tokens" if kind == "prompt" else "classes")
    batches = [collate([data[i] for i in range(s, s + sizes.batch)]) for s in range(0, len(data), sizes.batch)]
    for step in range(sizes.steps + WARM_UP):
        if step == WARM_UP:
            wait()
            start = time.perf_counter()
        batch = {name: value.to(DEVICE, non_blocking=True) for name, value in batches[step % 8].items()}
        with torch.autocast(DEVICE.type, torch.bfloat16, enabled=CUDA):
            found = run(**batch)
            loss = found.loss
            if teacher is not None:
                with torch.no_grad():
                    wanted = teacher(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits
                ours = (found.logits.float() / 2).log_softmax(-1)
                soft = torch.nn.functional.kl_div(ours, (wanted.float() / 2).softmax(-1), reduction="batchmean")
                loss = 0.5 * loss + 0.5 * 4 * soft
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    wait()
    return (time.perf_counter() - start) / sizes.steps


def measure_trainers(sizes: Sizes) -> Iterator[dict[str, Any]]:
    for kind in ("selection", "distillation", "loop", "prompt"):
        for compiled in (False, True) if CUDA else (False,):
            with peak() as memory:
                by_trainer(sizes, kind, compiled)
            found = in_turns(
                sizes.turns,
                lambda k=kind, c=compiled: by_trainer(sizes, k, c),
                lambda k=kind, c=compiled: bare(sizes, k, c),
            )
            yield {"trainer": kind, "compiled": compiled, **found, "peak_gib": memory["gib"]}


# The rest


def measure_bits(sizes: Sizes) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        sizes.llama().save_pretrained(folder)
        for bits in (16, 8, 4):
            if bits < 16 and not is_bitsandbytes_available():
                yield {"bits": bits, "left out": 'pip install "tithe[quantization]"'}
                continue
            options: dict[str, Any] = {"dtype": torch.bfloat16}
            if bits < 16:
                config = BitsAndBytesConfig(
                    load_in_8bit=bits == 8, load_in_4bit=bits == 4, bnb_4bit_compute_dtype=torch.bfloat16
                )
                options = {"quantization_config": config, "device_map": {"": str(DEVICE)}}
            with peak() as memory:
                model = AutoModelForCausalLM.from_pretrained(folder, **options)
                footprint = model.get_memory_footprint()
                model = model.to(DEVICE) if bits == 16 else prepare_model_for_kbit_training(model, False)
                lora = LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"])
                seconds = lora_step(sizes, get_peft_model(model, lora))
            yield {"bits": bits, "step_s": seconds, "footprint_mib": footprint / 2**20, "peak_gib": memory["gib"]}
            del model


def lora_step(sizes: Sizes, model: Any) -> float:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    data = sizes.data(sizes.batch, "tokens")
    batch = {name: value.to(DEVICE) for name, value in collate([data[i] for i in range(sizes.batch)]).items()}
    for step in range(sizes.steps // 2 + WARM_UP):
        if step == WARM_UP:
            wait()
            start = time.perf_counter()
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    wait()
    return (time.perf_counter() - start) / (sizes.steps // 2)


def measure_reading(sizes: Sizes) -> Iterator[dict[str, Any]]:
    model, data = sizes.bert().to(DEVICE, torch.bfloat16 if CUDA else torch.float32), sizes.data(sizes.rows, "classes")
    batch, lengths = 4 * sizes.batch, np.full(len(data), sizes.tokens)

    def moved(values: Any) -> dict[str, torch.Tensor]:
        return {name: value.to(DEVICE, non_blocking=True) for name, value in values.items()}

    def ours() -> float:
        wait()
        start = time.perf_counter()
        needs = {"embeddings", "probabilities"}
        read_signals(model, data, needs, collate=collate, lengths=lengths, batch_size=batch, prepare=moved)
        wait()
        return time.perf_counter() - start

    batches = [collate([data[i] for i in range(s, min(s + batch, len(data)))]) for s in range(0, len(data), batch)]

    @torch.inference_mode()
    def theirs() -> float:
        model.eval()
        wait()
        start = time.perf_counter()
        for one in batches:
            model(**{name: value for name, value in moved(one).items() if name != "labels"}).logits.cpu()
        wait()
        return time.perf_counter() - start

    ours(), theirs()
    found = in_turns(sizes.turns, ours, theirs)
    yield {**found, "rows_a_second": len(data) / found["ours_s"]}


def measure_picks(sizes: Sizes) -> Iterator[dict[str, Any]]:
    rows = np.random.default_rng(0).standard_normal((sizes.pool, sizes.dimensions), dtype=np.float32)
    start = time.perf_counter()
    radius = k_center_greedy(rows, sizes.picks, normalize=True).radius
    yield {"rows": sizes.pool, "picks": sizes.picks, "seconds": time.perf_counter() - start, "radius": radius}


def measure_generation(sizes: Sizes) -> Iterator[dict[str, Any]]:
    words = {f"w{i}": i for i in range(sizes.vocabulary)}
    core = Tokenizer(models.WordLevel(words, unk_token="w3"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "w0", "bos_token": "w1", "eos_token": "w2", "padding_side": "left"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names)
    model = sizes.llama().to(DEVICE).eval()
    rng = np.random.default_rng(0)
    prompts = [
        " ".join(f"w{t}" for t in rng.integers(5, sizes.vocabulary, rng.integers(8, sizes.tokens)))
        for _ in range(sizes.prompts)
    ]
    batch = 8 * sizes.batch

    def ours() -> float:
        wait()
        start = time.perf_counter()
        options = {"max_new_tokens": sizes.answer, "batch_size": batch, "progress": False}
        generate_answers(model, tokenizer, prompts, dtype=torch.bfloat16, **options)
        wait()
        return time.perf_counter() - start

    peer = copy.deepcopy(model).to(torch.bfloat16)

    @torch.inference_mode()
    def theirs() -> float:
        wait()
        start = time.perf_counter()
        ordered = sorted(prompts, key=len, reverse=True)
        for place in range(0, len(ordered), batch):
            inputs = tokenizer(ordered[place : place + batch], return_tensors="pt", padding=True).to(DEVICE)
            inputs.pop("token_type_ids", None)
            peer.generate(**inputs, max_new_tokens=sizes.answer, do_sample=False)
        wait()
        return time.perf_counter() - start

    ours(), theirs()
    with peak() as memory:
        ours()
    found = in_turns(sizes.turns, ours, theirs)
    yield {**found, "prompts_a_second": len(prompts) / found["ours_s"], "peak_gib": memory["gib"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path, help="Write all figures there.")
    options = parser.parse_args()
    if not CUDA and not options.tiny:
        parser.error("there is no GPU here; `--tiny` tries every part on the CPU")
    sizes, found = Sizes(options.tiny), {"device": torch.cuda.get_device_name() if CUDA else "CPU"}
    print(found["device"], flush=True)
    for part in options.only:
        found[part] = []
        for row in globals()[f"measure_{part}"](sizes):
            found[part].append(row)
            print(part, json.dumps(row), flush=True)
    if options.json:
        write_results(options.json, {**found, "environment": environment()})


if __name__ == "__main__":
    main()
