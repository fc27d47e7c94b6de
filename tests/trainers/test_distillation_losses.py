"""The dense losses of distillation against their formulas in NumPy."""

import numpy as np
import pytest
import torch
from torch import nn

from tithe.trainers import (
    TopK,
    attention_loss,
    average_teachers,
    hidden_state_loss,
    soft_loss,
    top_k_of,
    top_k_soft_loss,
)


RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(4, 6)), 2 * RNG.normal(size=(4, 6))


def softmax(logits, temperature=1.0):
    powers = np.exp(logits / temperature)
    return powers / powers.sum(-1, keepdims=True)


def divergence(p, q):
    return sum(a * np.log(a / b) for row, other in zip(p, q, strict=True) for a, b in zip(row, other, strict=True))


def tensor(values):
    return torch.tensor(np.asarray(values))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_loss(temperature):
    p, q = softmax(TEACHER, temperature), softmax(STUDENT, temperature)
    got = soft_loss(tensor(STUDENT), tensor(np.log(p)), temperature)
    assert got.item() == pytest.approx(temperature**2 * divergence(p, q), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_lifted_first(dtype):
    logits, log_p = tensor(STUDENT).to(dtype), tensor(TEACHER).to(dtype).log_softmax(-1)
    got = soft_loss(logits, log_p, 2.0)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, soft_loss(logits.float(), log_p.float(), 2.0), rtol=0, atol=0)


def test_the_gradient_keeps_its_size_as_the_temperature_grows():
    """To first order it is (z - v) / c, with z and v of mean 0: Hinton et al., equation 4."""
    v = TEACHER - TEACHER.mean(-1, keepdims=True)
    z = tensor(STUDENT - STUDENT.mean(-1, keepdims=True)).requires_grad_()
    soft_loss(z, tensor(np.log(softmax(v, 1e4))), 1e4).backward()
    np.testing.assert_allclose(z.grad.numpy(), (z.detach().numpy() - v) / 6, rtol=5e-3, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_top_k_is_the_divergence_of_k_classes_and_the_rest(k, temperature):
    p, q = softmax(TEACHER, temperature), softmax(STUDENT, temperature)
    order = np.argsort(-p, axis=-1)
    merged = []
    for of in (p, q):
        ranked = np.take_along_axis(of, order, -1)
        merged.append(ranked if k == 6 else np.hstack([ranked[:, :k], ranked[:, k:].sum(-1, keepdims=True)]))
    top = top_k_of(tensor(np.log(p)), k)
    assert top.indices.dtype == torch.int32
    np.testing.assert_array_equal(top.indices.numpy(), order[:, :k])
    got = top_k_soft_loss(tensor(STUDENT), top.indices, top.log_probabilities, temperature)
    assert got.item() == pytest.approx(temperature**2 * divergence(*merged), rel=1e-10)
    whole = soft_loss(tensor(STUDENT), tensor(np.log(p)), temperature)
    assert got <= whole + 1e-12
    assert (k == 6) == bool(torch.isclose(got, whole, rtol=1e-10))


def test_the_rest_does_not_cancel():
    """They leave e⁻⁴⁰ and e⁻²⁰ to the second class; 1 - q would be 0 in float32, and the loss inf."""
    logits = torch.tensor([[40.0, 0.0]], requires_grad=True)
    p = np.exp(-20.0)
    loss = top_k_soft_loss(logits, torch.tensor([[0]]), torch.tensor([[-p]], dtype=torch.float32), 1.0)
    assert loss.item() == pytest.approx(p * 20 - p, rel=1e-3)
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_classes_ruled_out_add_nothing():
    log_p = torch.tensor([[0.5, 0.5, 0.0]]).log()
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    loss = soft_loss(logits, log_p, 1.0)
    q = softmax(np.array([[1.0, 2.0, 3.0]]))
    assert loss.item() == pytest.approx(0.5 * np.log(0.5 / q[0, 0]) + 0.5 * np.log(0.5 / q[0, 1]), rel=1e-6)
    np.testing.assert_allclose(torch.autograd.grad(loss, logits)[0], q - [[0.5, 0.5, 0]], atol=1e-6)


@pytest.mark.parametrize("weights", [None, [1.0, 3.0], [0.0, 2.0]])
def test_averages(weights):
    a, b = np.array(weights or [1, 1]) / sum(weights or [1, 1])
    members = [tensor(STUDENT), tensor(TEACHER)]
    mixed = a * softmax(STUDENT, 2) + b * softmax(TEACHER, 2)
    np.testing.assert_allclose(average_teachers(members, weights, 2.0).exp(), mixed, rtol=1e-12)
    between = softmax(a * STUDENT + b * TEACHER, 2)
    np.testing.assert_allclose(average_teachers(members, weights, 2.0, "logits").exp(), between, rtol=1e-12)


def test_hidden_states():
    student, teacher = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 3, 5))
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    projection = nn.Linear(4, 5).double()
    linear = student @ projection.weight.detach().numpy().T + projection.bias.detach().numpy()
    want = sum(((linear - teacher)[i, j] ** 2).mean() for i, j in np.argwhere(mask))
    teacher[1, 2] = np.nan  # padding must never be read
    got = hidden_state_loss(tensor(student), tensor(teacher), tensor(mask), projection)
    assert got.item() == pytest.approx(want, rel=1e-12)
    got.backward()
    assert projection.weight.grad.isfinite().all()


@pytest.mark.parametrize("heads", [2, 4])
def test_attention(heads):
    student, teacher = softmax(RNG.normal(size=(2, 2, 3, 3))), softmax(RNG.normal(size=(2, heads, 3, 3)))
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    one, other = (student, teacher) if heads == 2 else (student.mean(1)[:, None], teacher.mean(1)[:, None])
    want = 0.0
    for row in range(2):
        n = mask[row].sum()
        for query in range(n):
            want += ((one - other)[row, :, query, :n] ** 2).mean()
    assert attention_loss(tensor(student), tensor(teacher), tensor(mask)).item() == pytest.approx(want, rel=1e-12)


Z = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: soft_loss(Z, Z, 0.0), "`temperature` must be above 0, found 0.0"),
        (lambda: soft_loss(Z, torch.zeros(2, 4), 1.0), r"found \[2, 4\]; align the classes"),
        (lambda: top_k_soft_loss(Z, Z[:1].long(), Z[:1], 1.0), "must have the 2 rows"),
        (lambda: top_k_of(Z, 4), "`k` must be within 1 and the 3 classes, found 4"),
        (lambda: TopK(Z.int(), Z[:1]), r"found \[2, 3\] and \[1, 3\]"),
        (lambda: average_teachers([]), "`logits` must be tensors of one shape"),
        (lambda: average_teachers([Z], [1.0, 2.0]), "`weights` must be 1 numbers"),
        (lambda: average_teachers([Z, Z], [0.0, 0.0]), "not all 0"),
        (lambda: average_teachers([Z], average="median"), "`average` must be"),
        (lambda: hidden_state_loss(Z[None], Z[None, :, :2], torch.ones(1, 2)), "give a `projection`"),
        (lambda: hidden_state_loss(Z[None], Z[None], torch.ones(1, 3)), "must agree in rows and tokens"),
        (lambda: attention_loss(Z[None], Z[None], torch.ones(1, 2)), r"`student` must be \[1, heads, 2, 2\]"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(ValueError, match=says):
        call()
