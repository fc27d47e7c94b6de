import copy

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DistilBertConfig,
    DistilBertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from tithe.models import FactorizedEmbedding, build_student, factorize_embeddings


SPECIAL = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48}
SIDES = {f"{side}_{k}": 4 for side in ("encoder", "decoder") for k in ("layers", "attention_heads")}
IDS = torch.arange(3, 17).reshape(2, 7)
DISTIL = {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 48, "vocab_size": 50, "max_position_embeddings": 20}
BART = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 20}
T5 = {"d_model": 32, "d_kv": 8, "num_heads": 4, "num_layers": 4, "d_ff": 48, "vocab_size": 50}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
# Model class, config, and the path to each list of layers.
MODELS = {
    "bert": (BertForTokenClassification, BertConfig(**SIZES, vocab_size=50, num_labels=5), ["bert.encoder.layer"]),
    "roberta": (
        RobertaForSequenceClassification,
        RobertaConfig(**SIZES, vocab_size=50, max_position_embeddings=20),
        ["roberta.encoder.layer"],
    ),
    "distilbert": (DistilBertForTokenClassification, DistilBertConfig(**DISTIL), ["distilbert.transformer.layer"]),
    "modernbert": (
        ModernBertForMaskedLM,
        ModernBertConfig(**SIZES, **SPECIAL, cls_token_id=1, sep_token_id=2),
        ["model.layers"],
    ),
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES, **SPECIAL, num_key_value_heads=2), ["model.layers"]),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, **SPECIAL, **GROUPED), ["model.layers"]),
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=32, n_layer=4, n_head=4, n_inner=48, **SPECIAL), ["transformer.h"]),
    "t5": (T5ForConditionalGeneration, T5Config(**T5), ["encoder.block", "decoder.block"]),
    "bart": (
        BartForConditionalGeneration,
        BartConfig(**SIDES, **BART, **SPECIAL),
        ["model.encoder.layers", "model.decoder.layers"],
    ),
}


def made(name):
    torch.manual_seed(0)
    make, config, lists = MODELS[name]
    model = make(copy.deepcopy(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval(), lists


def logits(model):
    inputs = {"decoder_input_ids": IDS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS), **inputs).logits


def full():
    return {"hidden_size": 32, "heads": 4, "intermediate_size": 48}


@pytest.mark.parametrize("name", MODELS)
def test_a_student_of_all_layers_is_the_teacher(name):
    teacher, _ = made(name)
    student = build_student(teacher, layers=4, **full(), initialize="teacher")
    assert type(student) is type(teacher) and student.training
    assert torch.equal(logits(student), logits(teacher))
    other = build_student(teacher, layers=4, **full(), initialize="random")
    assert not torch.allclose(logits(other), logits(teacher), atol=1e-2)
    assert all(p.data_ptr() not in {q.data_ptr() for q in teacher.parameters()} for p in student.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_student_of_fewer_layers_is_the_teacher_without_the_others(name):
    teacher, lists = made(name)
    student = build_student(teacher, layers=3, **full(), initialize="teacher")
    for path in lists:
        kept = [teacher.get_submodule(path)[i] for i in (0, 2, 3)]
        teacher.set_submodule(path, torch.nn.ModuleList(kept))
    for key in ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers", "num_decoder_layers"):
        if hasattr(teacher.config, key):
            setattr(teacher.config, key, 3)
    for model in (teacher, student):
        model.config.use_cache = False  # the teacher's layers keep their old places in the cache
    if getattr(teacher.config, "layer_types", None):
        teacher.config.layer_types = [teacher.config.layer_types[i] for i in (0, 2, 3)]
        assert student.config.layer_types == teacher.config.layer_types
    assert torch.equal(logits(student), logits(teacher))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("initialize", ["random", "teacher"])
def test_a_student_of_its_own_choice_meets_the_budget_and_is_saved(name, initialize, tmp_path):
    teacher, _ = made(name)
    budget = teacher.num_parameters() // 3
    student = build_student(teacher, max_parameters=budget, initialize=initialize, embedding_rank=3)
    assert budget // 4 < student.num_parameters() <= budget
    student.save_pretrained(tmp_path)
    loaded = type(student).from_pretrained(tmp_path)
    assert isinstance(loaded.get_input_embeddings(), FactorizedEmbedding)
    assert torch.equal(logits(loaded), logits(student))
    assert logits(student).isfinite().all() and logits(student).shape == logits(teacher).shape


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_width_heads_and_units_that_do_nothing_are_the_ones_dropped(name):
    teacher, _ = made(name)
    for module in teacher.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.0
    dead = torch.tensor([1, 2, 3, 5, 8, 11, 17, 20, 21, 22, 23, 24, 25, 29, 30, 31])
    with torch.no_grad():
        teacher.model.embed_tokens.weight[:, dead] = 0
        for layer in teacher.model.layers:
            layer.mlp.down_proj.weight[dead] = 0
            layer.mlp.down_proj.weight[:, 5:29] = 0
            layer.self_attn.o_proj.weight[dead] = 0
            layer.self_attn.o_proj.weight[:, :16] = 0
    student = build_student(
        teacher, layers=4, hidden_size=16, heads=2, intermediate_size=24, initialize="teacher", max_parameters=30_000
    )
    for module in student.modules():
        if hasattr(module, "variance_epsilon"):
            module.variance_epsilon = 0.0
    assert student.config.num_key_value_heads == 1 and student.config.head_dim == 8
    torch.testing.assert_close(logits(student), logits(teacher), atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "modernbert", "gpt2", "t5", "bart"])
def test_feed_forward_units_that_do_nothing_are_the_ones_dropped(name):
    teacher, lists = made(name)
    ends = ("output.dense", "lin2", "fc2", "mlp.Wo", "mlp.c_proj", "wo")
    with torch.no_grad():
        for path, module in teacher.named_modules():
            if path.endswith(ends) and "attention" not in path:
                weight = module.weight.T if name == "gpt2" else module.weight
                weight[:, 10:34] = 0
    student = build_student(
        teacher, layers=4, hidden_size=32, heads=4, intermediate_size=24, initialize="teacher", max_parameters=10**6
    )
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-5, rtol=1e-4)


def test_samples_choose_coordinates_and_recover_dropped_ones():
    teacher, _ = made("llama")
    copies = torch.arange(16)
    with torch.no_grad():
        writers = [teacher.model.embed_tokens.weight.T]
        for layer in teacher.model.layers:
            writers += [layer.mlp.down_proj.weight, layer.self_attn.o_proj.weight]
        for weight in writers:
            weight[copies + 16] = 0.5 * weight[copies]
    sizes = {"layers": 4, "hidden_size": 16, "heads": 4, "intermediate_size": 48, "initialize": "teacher"}
    samples = [{"input_ids": torch.randint(3, 50, (40, 12)), "attention_mask": torch.ones(40, 12).long()}]
    plain, fitted = build_student(teacher, **sizes), build_student(teacher, samples=samples, **sizes)
    error = [(logits(student) - logits(teacher)).pow(2).mean().item() for student in (plain, fitted)]
    assert error[1] < 0.3 * error[0]
    with pytest.raises(ValueError, match="`samples` must hold"):
        build_student(teacher, samples=[], **sizes)


def test_count_of_the_reference_student():
    config = BertConfig(vocab_size=28_996, num_labels=9, architectures=["BertForTokenClassification"])
    sizes = {"layers": 6, "hidden_size": 384, "heads": 6, "intermediate_size": 1024}
    assert build_student(config, **sizes).num_parameters() == 19_620_489
    automatic = build_student(config)
    assert 15_000_000 < automatic.num_parameters() <= 20_000_000
    assert automatic.config.num_hidden_layers == 6 and automatic.config.hidden_size == 320
    assert config.hidden_size == 768


def test_labels_task_tokens_and_the_teacher_are_kept():
    names = {0: "O", 1: "B-X", 2: "I-X"}
    config = BertConfig(**SIZES, **SPECIAL, id2label=names, label2id={v: k for k, v in names.items()})
    config.problem_type = "multi_label_classification"
    teacher = BertForSequenceClassification(config)
    before = copy.deepcopy(config.to_dict())
    student = build_student(teacher, layers=2).config
    for key in ("id2label", "label2id", "problem_type", "pad_token_id", "bos_token_id", "eos_token_id", "vocab_size"):
        assert getattr(student, key) == getattr(config, key)
    assert student.num_labels == 3 and teacher.config.to_dict() == before


def test_seed_decides_the_weights_and_nothing_else():
    teacher, _ = made("bert")
    state = torch.get_rng_state()
    first, again, other = (build_student(teacher, layers=2, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    weights = [model.bert.encoder.layer[1].output.dense.weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_factorised_teacher_gives_its_product():
    teacher, _ = made("bert")
    factorize_embeddings(teacher, rank=6)
    sizes = {"layers": 4, **full(), "initialize": "teacher"}
    student = build_student(teacher, **sizes)
    assert isinstance(student.get_input_embeddings(), torch.nn.Embedding)
    torch.testing.assert_close(logits(student), logits(teacher), atol=1e-5, rtol=1e-4)
    again = build_student(teacher, embedding_rank=6, **sizes)
    assert again.get_input_embeddings().rank == 6
    torch.testing.assert_close(logits(again), logits(teacher), atol=1e-4, rtol=1e-3)
    assert teacher.get_input_embeddings().rank == 6


def test_what_cannot_be_built_is_refused():
    config = BertConfig(vocab_size=28_996, num_labels=9, architectures=["BertForTokenClassification"])
    with pytest.raises(ValueError, match=r"has 107,726,601: 22,268,928 in word .* fit: .*layers=6, hidden_size=320"):
        build_student(config, layers=12, hidden_size=768, heads=12, intermediate_size=3072)
    with pytest.raises(ValueError, match="embedding_rank=128"):
        build_student(config, layers=6, hidden_size=384, heads=6, intermediate_size=1536)
    with pytest.raises(ValueError, match="Nothing of this kind fits"):
        build_student(config, max_parameters=1000)
    with pytest.raises(ValueError, match="`architectures` is None"):
        build_student(BertConfig())
    with pytest.raises(ValueError, match="needs a model with weights"):
        build_student(config, initialize="teacher")
    with pytest.raises(ValueError, match="`initialize` must be"):
        build_student(config, initialize="copy")
    with pytest.raises(TypeError, match="`model` must be a transformers"):
        build_student(torch.nn.Linear(2, 2))
    teacher, _ = made("bert")
    for wrong, message in (
        ({"layers": 0}, "`layers` must be at least 1"),
        ({"hidden_size": 30, "heads": 4}, "cannot be divided"),
        ({"layers": 5, "initialize": "teacher"}, "`layers` .* at most 4, got 5"),
        ({"hidden_size": 16, "heads": 4, "initialize": "teacher"}, "width 8; got 4 of width 4"),
    ):
        with pytest.raises(ValueError, match=message):
            build_student(teacher, **wrong)
