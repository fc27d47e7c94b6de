"""A fingerprint tells apart what differs, and nothing else."""

import os
import subprocess
import sys

import tiny
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tithe.models import model_fingerprint, text_fingerprint, tokenizer_fingerprint


def test_model_fingerprints_know_every_bit(make_model):
    model = make_model()
    first = model_fingerprint(model)
    assert first == model_fingerprint(make_model()) == model_fingerprint(model.train())
    model.config._name_or_path = "elsewhere"
    assert model_fingerprint(model) == first
    weight = model.bert.encoder.layer[1].output.dense.weight
    with torch.no_grad():
        weight[3, 4] = torch.nextafter(weight[3, 4], torch.tensor(9.0))
    assert model_fingerprint(model) != first == model_fingerprint(make_model())
    others = [model_fingerprint(model), model_fingerprint(make_model(seed=1)), model_fingerprint(make_model().half())]
    others.append(model_fingerprint(make_model(hidden_act="relu")))
    for alpha in (1, 2):
        adapted = get_peft_model(make_model(), LoraConfig(target_modules=["value"], lora_alpha=alpha))
        others.append(model_fingerprint(adapted))
    assert len({first, *others}) == 1 + len(others)


def test_model_fingerprints_do_not_know_where_from(make_model, tmp_path):
    model = make_model()
    model.save_pretrained(tmp_path)
    assert model_fingerprint(type(model).from_pretrained(tmp_path)) == model_fingerprint(make_model())


def test_a_submodule_can_be_left_out(make_model):
    model, other = make_model(), make_model()
    torch.nn.init.ones_(other.classifier.weight)
    assert model_fingerprint(model) != model_fingerprint(other)
    assert model_fingerprint(model, without="classifier") == model_fingerprint(other, without="classifier")
    assert model_fingerprint(model, without="class") != model_fingerprint(other, without="class")


def test_model_fingerprints_are_the_same_in_another_process(make_model, tmp_path):
    """Sets have another order there."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tiny;"
        "from peft import LoraConfig, get_peft_model; from tithe.models import model_fingerprint;"
        "print(model_fingerprint(get_peft_model(tiny.make_model(),"
        " LoraConfig(target_modules=['value', 'query', 'key'], init_lora_weights=True))))"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code, os.path.dirname(tiny.__file__)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]  # a library may have its say before
        for seed in "12"
    }
    assert len(found) == 1 and len(found.pop()) == 64


def make_tokenizer(words=("a", "b"), **options):
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<pad>", "<unk>", *words])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, **{"pad_token": "<pad>", "unk_token": "<unk>", **options})


def test_tokenizer_fingerprints_do_not_know_earlier_calls():
    tokenizer = make_tokenizer()
    first = tokenizer_fingerprint(tokenizer)
    tokenizer(["a b a", "a"], padding=True, truncation=True, max_length=2)
    assert tokenizer_fingerprint(tokenizer) == first
    others = [make_tokenizer(("b", "a")), make_tokenizer(bos_token="a"), make_tokenizer(model_max_length=9)]
    others.append(make_tokenizer())
    others[-1].backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    assert len({first, *map(tokenizer_fingerprint, others)}) == 5


def test_text_fingerprints_know_where_texts_begin():
    columns = [(["ab", "c"],), (["a", "bc"],), (["c", "ab"],), (["ab"], ["c"]), (["ab", "c"], None), (["ab", "c"], [])]
    assert len({text_fingerprint(*c) for c in columns}) == len(columns)
    assert text_fingerprint(["ab", "\ud800"]) == text_fingerprint(("ab", "\ud800"))
