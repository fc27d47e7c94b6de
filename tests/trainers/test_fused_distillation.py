"""The fused loss against the dense closed forms, its gradients against finite differences and autograd."""

import pytest
import torch
from torch.nn import functional as F

from tithe.trainers import (
    DenseTeacher,
    LinearTeacher,
    TeacherEnsemble,
    average_teachers,
    fused_distillation,
    soft_loss,
    top_k_of,
    top_k_soft_loss,
)


ROWS, WIDTH, CLASSES = 5, 3, 7
KINDS = ["top-1", "top-3", "top-all", "dense", "linear", "probabilities", "logits"]
WEIGHTS = [(0.7, 0.3), (1.0, 0.0), (0.0, 1.0)]  # soft, hard


def random(*shape, seed, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def student(dtype=torch.float64):
    parts = random(ROWS, WIDTH, seed=0), random(CLASSES, WIDTH, seed=1), random(CLASSES, seed=2)
    return [part.to(dtype).requires_grad_() for part in parts]


def labels():
    return torch.tensor([0, -100, 6, 3, -100])


def make_teacher(kind, temperature):
    """The teacher, and its log-probabilities made by other means, None for top-k."""
    first = LinearTeacher(random(ROWS, 4, seed=3), random(CLASSES, 4, seed=4), random(CLASSES, seed=5), temperature)
    one = random(ROWS, 4, seed=3) @ random(CLASSES, 4, seed=4).T + random(CLASSES, seed=5)
    two = 3 * random(ROWS, CLASSES, seed=6)
    if kind.startswith("top"):
        k = CLASSES if kind == "top-all" else int(kind[-1])
        return top_k_of((two / temperature).log_softmax(-1), k), None
    if kind == "linear":
        return first, (one / temperature).log_softmax(-1)
    if kind == "dense":
        return DenseTeacher(two, temperature), (two / temperature).log_softmax(-1)
    both = TeacherEnsemble([first, DenseTeacher(two, temperature)], [1, 3], average=kind)
    return both, average_teachers([one, two], [1, 3], temperature, average=kind)


def dense_parts(hidden, weight, bias, teacher, log_p, temperature):
    logits = F.linear(hidden, weight, bias)
    hard = F.cross_entropy(logits, labels(), reduction="sum")
    if log_p is None:
        return hard, top_k_soft_loss(logits, teacher.indices, teacher.log_probabilities, temperature)
    return hard, soft_loss(logits, log_p, temperature)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("soft_weight", "hard_weight"), WEIGHTS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind, soft_weight, hard_weight, temperature):
    teacher, _ = make_teacher(kind, temperature)
    options = {"temperature": temperature, "soft_weight": soft_weight, "hard_weight": hard_weight, "chunk_rows": 2}

    def loss(hidden, weight, bias):
        return fused_distillation(hidden, weight, labels(), teacher, bias=bias, denominator=3, **options).loss

    assert torch.autograd.gradcheck(loss, student())


@pytest.mark.parametrize("chunk_rows", [1, 2, None])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize(("soft_weight", "hard_weight"), WEIGHTS)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_closed_form(kind, soft_weight, hard_weight, temperature, chunk_rows):
    teacher, log_p = make_teacher(kind, temperature)
    parts = student()
    hard, soft = dense_parts(*parts, teacher, log_p, temperature)
    want = (hard_weight * hard + soft_weight * soft) / 3
    options = {"temperature": temperature, "soft_weight": soft_weight, "hard_weight": hard_weight}
    got = fused_distillation(
        *parts[:2], labels(), teacher, bias=parts[2], denominator=torch.tensor(3), chunk_rows=chunk_rows, **options
    )
    torch.testing.assert_close(got.loss, want)
    torch.testing.assert_close(got.hard, hard.detach() if hard_weight else torch.zeros_like(hard))
    torch.testing.assert_close(got.soft, soft.detach() if soft_weight else torch.zeros_like(soft))
    assert not got.hard.requires_grad and not got.soft.requires_grad
    torch.testing.assert_close(torch.autograd.grad(got.loss, parts), torch.autograd.grad(want, parts))


@pytest.mark.parametrize("kind", ["top-3", "dense"])
def test_tiles_make_no_difference(kind, monkeypatch):
    """Chunks of four rows in tiles of three: the last tile of a chunk is smaller than the spare one."""
    for module in ("logit_gradients", "teacher_rows"):
        monkeypatch.setattr(f"tithe.trainers.{module}.tiles", lambda values: values.split(3))
    test_equals_the_closed_form(kind, 0.7, 0.3, 2.5, 4)


def make(parts, teacher, **options):
    options = {"temperature": 2.0, "soft_weight": 0.5, "hard_weight": 0.5} | options
    return fused_distillation(parts[0], parts[1], labels(), teacher, bias=parts[2], **options)


def test_a_retained_graph_gives_the_same_again():
    parts, (teacher, _) = student(), make_teacher("dense", 2.0)
    want = torch.autograd.grad(make(parts, teacher).loss, parts)
    loss = make(parts, teacher).loss
    first = torch.autograd.grad(5 * loss, parts, retain_graph=True)
    torch.testing.assert_close(first, tuple(5 * gradient for gradient in want))
    for gradient in first:
        gradient.zero_()  # as clipping changes gradients in place
    for _ in range(2):
        loss.backward(retain_graph=True)
    torch.testing.assert_close([part.grad for part in parts], [2 * gradient for gradient in want])
    torch.testing.assert_close(torch.autograd.grad(loss, parts), want)


def test_two_losses_on_one_head_add_up():
    parts, (teacher, _) = student(), make_teacher("top-3", 2.0)
    once = torch.autograd.grad(make(parts, teacher).loss, parts)
    both = torch.autograd.grad(make(parts, teacher).loss - 3 * make(parts, teacher).loss, parts)
    torch.testing.assert_close(both, tuple(-2 * gradient for gradient in once))


def test_frozen_parts_get_no_gradient():
    parts, (teacher, _) = student(), make_teacher("dense", 2.0)
    want = torch.autograd.grad(make(parts, teacher).loss, parts)
    for frozen in range(3):
        mixed = [part.detach() if place == frozen else part for place, part in enumerate(parts)]
        loss = make(mixed, teacher).loss
        assert loss.grad_fn.gradients[frozen] is None
        trained = [part for part in mixed if part.requires_grad]
        torch.testing.assert_close(
            torch.autograd.grad(loss, trained), tuple(want[place] for place in range(3) if place != frozen)
        )


@pytest.mark.parametrize("kind", ["top-3", "dense"])
def test_without_gradient_the_loss_is_the_same(kind):
    parts, (teacher, _) = student(), make_teacher(kind, 2.0)
    want = make(parts, teacher)
    with torch.no_grad():
        got = make(parts, teacher)
    assert not got.loss.requires_grad
    torch.testing.assert_close((got.loss, got.hard, got.soft), (want.loss.detach(), want.hard, want.soft))


def test_no_teacher_and_no_rows():
    parts = student()
    got = make(parts, None, soft_weight=0)
    want = 0.5 * F.cross_entropy(F.linear(*parts), labels(), reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(got.loss, parts), torch.autograd.grad(want, parts))
    none = fused_distillation(
        parts[0][:0], parts[1], labels()[:0], None, temperature=1.0, soft_weight=0, hard_weight=1
    )
    assert none.loss == 0
    assert torch.autograd.grad(none.loss, parts[1])[0].count_nonzero() == 0


@pytest.mark.parametrize("kind", ["top-3", "dense", "linear"])
@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_extreme_logits_stay_exact_in_float32(kind, spread):
    """At a spread of 300 all of the student's probabilities but one are below the least float."""
    teacher, log_p = make_teacher(kind, 2.0)
    exact = student()
    exact[1].data.mul_(spread)
    hard, soft = dense_parts(*exact, teacher, log_p, 2.0)
    single = [part.detach().float().requires_grad_() for part in exact]
    got = make(single, teacher)
    torch.testing.assert_close((got.hard, got.soft), (hard.detach().float(), soft.detach().float()), rtol=2e-5, atol=0)
    want = torch.autograd.grad(0.5 * (hard + soft), exact)
    for one, other in zip(torch.autograd.grad(got.loss, single), want, strict=True):
        torch.testing.assert_close(one, other.float(), rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("kind", ["dense", "probabilities", "logits"])
def test_classes_the_teacher_rules_out(kind):
    logits = random(ROWS, CLASSES, seed=6)
    logits[:, 2] = -torch.inf
    teacher = DenseTeacher(logits, 2.0)
    if kind != "dense":
        teacher = TeacherEnsemble([teacher, teacher], average=kind)
    parts = student()
    hard, soft = dense_parts(*parts, teacher, (logits / 2).log_softmax(-1), 2.0)
    assert soft.isfinite()
    torch.testing.assert_close(
        torch.autograd.grad(make(parts, teacher).loss, parts), torch.autograd.grad((hard + soft) / 2, parts)
    )


def test_bfloat16():
    parts = student(torch.bfloat16)
    exact = [part.detach().double().requires_grad_() for part in parts]
    teacher, log_p = make_teacher("dense", 2.0)
    hard, soft = dense_parts(*exact, teacher, log_p, 2.0)
    got = make(parts, teacher, chunk_rows=2)
    assert got.loss.dtype == torch.float32
    torch.testing.assert_close(got.loss.double(), (hard + soft) / 2, rtol=1e-2, atol=0)
    gradients = torch.autograd.grad(got.loss, parts)
    for one, other in zip(gradients, torch.autograd.grad((hard + soft) / 2, exact), strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.double(), other, rtol=0, atol=0.02 * float(other.abs().max()))


def test_autocast_multiplies_in_its_dtype():
    parts, (teacher, _) = student(torch.float32), make_teacher("top-3", 2.0)
    want = make([part.bfloat16() for part in parts], teacher).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = make(parts, teacher).loss
        gradients = torch.autograd.grad(got, parts)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert all(gradient.dtype == torch.float32 for gradient in gradients)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature": 0.0}, "`temperature` must be above 0"),
        ({"temperature": 3.0}, "must be at the `temperature` 3.0, found 2.0"),
        ({"soft_weight": 0, "hard_weight": 0}, "nor both 0"),
        ({"hard_weight": -1}, "must not be below 0"),
        ({"chunk_rows": 0}, "`chunk_rows` must be at least 1"),
        ({"teacher": None}, "`teacher` is None but"),
        ({"teacher": top_k_of(torch.zeros(ROWS - 1, 3), 2)}, "must have the 5 rows"),
        ({"teacher": top_k_of(torch.zeros(ROWS, 9).cumsum(-1).log_softmax(-1), 9)}, "found 0 … 8"),
        ({"teacher": DenseTeacher(torch.zeros(ROWS, 8), 2.0)}, r"\(5, 7\) as the student, found \(5, 8\)"),
        ({"labels": torch.tensor([0, 1, 7, 0, 0])}, "within 0 … 6 or -100, found 0 … 7"),
        ({"labels": torch.tensor([0, -1])}, r"`labels` must be \[5\]"),
        ({"bias": torch.zeros(3).double()}, r"`bias` must be \[7\]"),
        ({"hidden": torch.zeros(ROWS, WIDTH)}, "must have one dtype"),
        ({"weight": torch.zeros(CLASSES, 4).double()}, r"found \[5, 3\] and \[7, 4\]"),
    ],
)
def test_bad_input(change, says):
    hidden, weight, bias = student()
    teacher, _ = make_teacher("dense", 2.0)
    given = {"hidden": hidden, "weight": weight, "labels": labels(), "teacher": teacher, "bias": bias}
    given |= {"temperature": 2.0, "soft_weight": 0.5, "hard_weight": 0.5} | change
    with pytest.raises(ValueError, match=says):
        fused_distillation(**given)


def test_ensembles_must_agree():
    with pytest.raises(ValueError, match="must agree in rows"):
        TeacherEnsemble([DenseTeacher(torch.zeros(2, 3)), DenseTeacher(torch.zeros(2, 4))])
    with pytest.raises(ValueError, match="no teacher"):
        TeacherEnsemble([])
