"""Distillation at a large vocabulary: the fused loss beside TRL's GKD loss and plain PyTorch, in one run, one thread.

    python benchmarks/fused_loss.py --quick
    python benchmarks/fused_loss.py --output fused_loss.json

Work, from the last hidden states of student and teacher to the gradients of the student's hidden states and head:
"soft" is KL alone at temperature 1, which is all that TRL's `generalized_jsd_loss` (beta 0, forward KL) does; "both"
adds cross-entropy to KL at temperature 2. "cached top-k" is the fused loss from the teacher's k largest probabilities:
another loss, from which the teacher's head has gone, so no agreement is shown. "ready logits" starts from logits that
are there already, where GKD takes them, and ends at their gradient; ours cannot start there and is shown from hidden
states, the work of its own heads included.

Every contender runs in a process of its own, on the same inputs. CPU seconds are of the measured part alone, peak
memory is what it adds at its highest point to what the process held before.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tithe.evaluation import PeakMemory, environment
from tithe.trainers import LinearTeacher, TopK, fused_distillation, top_k_of


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PEER = 'pip install "trl==1.16.0"'
MIB = 2**20


class Inputs:
    """What every contender gets: float32, the same for the same sizes."""

    def __init__(self, vocabulary: int, tokens: int, width: int, teacher_width: int) -> None:
        random = torch.Generator().manual_seed(0)
        self.hidden = torch.randn(tokens, width, generator=random).requires_grad_()
        self.weight = torch.randn(vocabulary, width, generator=random).mul_(width**-0.5).requires_grad_()
        self.teacher_hidden = torch.randn(tokens, teacher_width, generator=random)
        self.teacher_weight = torch.randn(vocabulary, teacher_width, generator=random).mul_(teacher_width**-0.5)
        self.labels = torch.randint(vocabulary, (tokens,), generator=random)


def gkd_loss() -> Callable[..., Tensor]:
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    from trl.experimental.gkd import GKDTrainer

    return GKDTrainer.generalized_jsd_loss


def prepared(name: str, given: Inputs, top_k: int) -> tuple[Callable[[], Tensor], tuple[Tensor, Tensor]]:
    """The measured part of a contender up to its loss, and the tensors whose gradients it ends with."""
    tokens = len(given.labels)
    leaves = given.hidden, given.weight

    def fused(teacher: Callable[[], Any], temperature: float, hard: float) -> Callable[[], Tensor]:
        options = {"temperature": temperature, "soft_weight": 1.0 - hard, "hard_weight": hard, "denominator": tokens}
        return lambda: fused_distillation(*leaves, given.labels, teacher(), **options).loss

    def teacher_logits() -> Tensor:
        with torch.no_grad():
            return given.teacher_hidden @ given.teacher_weight.T

    def plain() -> Tensor:
        logits, known = given.hidden @ given.weight.T, teacher_logits()
        soft = F.kl_div((logits / 2).log_softmax(-1), (known / 2).log_softmax(-1), reduction="sum", log_target=True)
        return (0.5 * F.cross_entropy(logits, given.labels, reduction="sum") + 0.5 * 4 * soft) / tokens

    def live(temperature: float) -> LinearTeacher:
        return LinearTeacher(given.teacher_hidden, given.teacher_weight, temperature=temperature)

    if name == "ours, soft":
        return fused(lambda: live(1.0), 1.0, 0.0), leaves
    if name == "ours, both":
        return fused(lambda: live(2.0), 2.0, 0.5), leaves
    if name.startswith("ours, cached"):
        temperature, hard = (1.0, 0.0) if name.endswith("soft") else (2.0, 0.5)
        heads = (part @ given.teacher_weight.T / temperature for part in given.teacher_hidden.split(64))
        parts = [top_k_of(head.log_softmax(-1), top_k) for head in heads]
        cached = TopK(torch.cat([p.indices for p in parts]), torch.cat([p.log_probabilities for p in parts]))
        return fused(lambda: cached, temperature, hard), leaves
    if name == "plain PyTorch":
        return plain, leaves
    peer = gkd_loss()
    if name == "TRL GKD":
        return lambda: peer(given.hidden @ given.weight.T, teacher_logits(), beta=0), leaves
    student, known = (given.hidden @ given.weight.T).detach().requires_grad_(), teacher_logits()
    return lambda: peer(student, known, beta=0), (student, student)


def contend(name: str, given: Inputs, top_k: int) -> dict[str, Any]:
    """One contender in this process: CPU seconds, MiB added at the peak, the loss, and a mark of each gradient.

    The mark is the gradient's projection on a fixed random direction, as a multiple of its norm.
    """
    torch.set_num_threads(1)
    small = Inputs(512, 16, given.hidden.shape[1], given.teacher_hidden.shape[1])
    prepared(name, small, min(top_k, 8))[0]().backward()  # the first products of a process cost extra
    loss_of, leaves = prepared(name, given, top_k)
    memory = PeakMemory()
    with memory.phase(name):
        cpu = time.process_time()
        loss = loss_of()
        loss.backward()
        seconds = time.process_time() - cpu
    phase = memory.to_dict()[name]
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    random = torch.Generator().manual_seed(1)
    marks = [float((part * torch.randn(part.shape, generator=random)).sum() / part.norm()) for part in gradients]
    added = (phase["peak_bytes"] - phase["start_bytes"]) / MIB
    return {"cpu_s": seconds, "mib": added, "loss": loss.item(), "marks": marks, "method": phase["method"]}


def apart(name: str, sizes: list[int], top_k: int, repeats: int) -> dict[str, Any]:
    """`contend` in fresh processes: the median of their seconds, the highest of their peaks."""
    command = [sys.executable, __file__, "--contender", name, "--sizes", *map(str, sizes), "--top-k", str(top_k)]
    runs = []
    for _ in range(repeats):
        done = subprocess.run(command, env=os.environ | dict.fromkeys(THREADS, "1"), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stderr}")
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    seconds = [run["cpu_s"] for run in runs]
    return runs[-1] | {"cpu_s": statistics.median(seconds), "mib": max(run["mib"] for run in runs), "all": seconds}


def agreement(ours: dict[str, Any], peer: dict[str, Any]) -> float:
    """The largest difference: of the losses relative to the loss, of the gradients' marks as they are."""
    marks = zip(ours["marks"], peer["marks"], strict=True)
    return max(abs(ours["loss"] - peer["loss"]) / abs(peer["loss"]), *(abs(one - other) for one, other in marks))


def measure(
    vocabulary: int = 151_936,
    tokens: int = 1024,
    width: int = 256,
    teacher_width: int = 256,
    top_k: int = 64,
    repeats: int = 1,
) -> list[dict[str, Any]]:
    """One row for each pair of ours and a peer."""
    sizes = [vocabulary, tokens, width, teacher_width]
    pairs = [
        ("soft", "ours, soft", "TRL GKD"),
        (f"soft, cached top-{top_k}", "ours, cached soft", "TRL GKD"),
        ("soft, peer from ready logits", "ours, soft", "TRL GKD, ready logits"),
        ("both, T = 2", "ours, both", "plain PyTorch"),
        (f"both, T = 2, cached top-{top_k}", "ours, cached both", "plain PyTorch"),
    ]
    if importlib.util.find_spec("trl") is None:
        print(f"TRL is not installed and left out: {PEER}")
        pairs = [pair for pair in pairs if not pair[2].startswith("TRL")]
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for pair in pairs for name in pair[1:]):
        found[name] = apart(name, sizes, top_k, repeats)
        print(f"{name:24}{found[name]['cpu_s']:8.2f} CPU s {found[name]['mib']:8.0f} MiB", flush=True)
    rows = []
    for work, name, peer_name in pairs:
        ours, peer = found[name], found[peer_name]
        same = "cached" not in work and "ready" not in work
        rows.append(
            {
                "work": work,
                "size": f"{vocabulary} x {tokens}, {width} d",
                "ours_cpu_s": ours["cpu_s"],
                "peer": peer_name,
                "peer_cpu_s": peer["cpu_s"],
                "ratio": peer["cpu_s"] / ours["cpu_s"],
                "agreement": f"{agreement(ours, peer):.1e}" if same else "not the same work",
                "extrapolated": False,
                "ours_mib": ours["mib"],
                "peer_mib": peer["mib"],
                "memory_ratio": peer["mib"] / max(ours["mib"], 1e-9),
                "memory_method": ours["method"],
                "runs": {"ours": ours["all"], "peer": peer["all"]},
            }
        )
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    print(
        f"\n{'work':32}{'ours, CPU s':>12}{'peer':>24}{'CPU s':>8}{'ratio':>8}{'ours MiB':>10}{'peer MiB':>10}"
        f"{'ratio':>8}  apart by"
    )
    for row in rows:
        print(
            f"{row['work']:32}{row['ours_cpu_s']:12.2f}{row['peer']:>24}{row['peer_cpu_s']:8.2f}{row['ratio']:7.2f}x"
            f"{row['ours_mib']:10.0f}{row['peer_mib']:10.0f}{row['memory_ratio']:7.1f}x  {row['agreement']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="the fused distillation loss beside its peers, one thread")
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--width", type=int, default=256, help="of the student's hidden states")
    parser.add_argument("--teacher-width", type=int, help="of the teacher's, by default the student's")
    parser.add_argument("--top-k", type=int, default=64, help="how much of the teacher a cache keeps")
    parser.add_argument(
        "--repeats", type=int, default=1, help="processes a contender; the median of CPU seconds counts"
    )
    parser.add_argument("--quick", action="store_true", help="an eighth of the tokens, a quarter of the vocabulary")
    parser.add_argument("--output", type=Path, help="file to write the rows to, as JSON")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--sizes", type=int, nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        print(json.dumps(contend(args.contender, Inputs(*args.sizes), args.top_k)))
        return
    if args.quick:
        args.vocabulary, args.tokens = args.vocabulary // 4, args.tokens // 8
    teacher_width = args.teacher_width or args.width
    rows = measure(args.vocabulary, args.tokens, args.width, teacher_width, args.top_k, args.repeats)
    show(rows)
    if args.output:
        versions = environment()
        if importlib.util.find_spec("trl"):
            versions["trl"] = importlib.metadata.version("trl")
        args.output.write_text(json.dumps({"rows": rows, "environment": versions}, indent=2))


if __name__ == "__main__":
    main()
