"""Prompts: in a chat template or plain, their tokens, and passages that fit."""

import answerers
import pytest
from tokenizers import processors

from tithe.models import chat_prompts, encode_prompts, fit_passages


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
)
DIALOGUE = [
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three?"},
]


@pytest.fixture
def tokenizer():
    return answerers.make_tokenizer()


def test_with_a_template(tokenizer):
    tokenizer.chat_template = TEMPLATE
    found = chat_prompts(tokenizer, ["one?", DIALOGUE], system="Be brief.")
    assert found == [
        "[CLS]<system>Be brief.</><user>one?</><assistant><think></think>",
        "[CLS]<user>one?</><assistant>two</><user>three?</><assistant><think></think>",
    ]
    assert chat_prompts(tokenizer, ["one?"]) == ["[CLS]<user>one?</><assistant><think></think>"]


def test_without_a_template(tokenizer):
    found = chat_prompts(tokenizer, ["one?", [{"role": "system", "content": "Be brief."}, *DIALOGUE]])
    assert found == [
        "Question: one?\nAnswer:",
        "Be brief.\n\nQuestion: one?\nAnswer: two\n\nQuestion: three?\nAnswer:",
    ]


@pytest.mark.parametrize("item", [[], DIALOGUE[:2]])
def test_the_user_has_the_last_turn(tokenizer, item):
    with pytest.raises(ValueError, match="`messages` 1 must end with a turn of the user"):
        chat_prompts(tokenizer, ["one?", item])


def test_begins_once_and_does_not_end(tokenizer):
    tokenizer.chat_template = TEMPLATE
    own = tokenizer("one two", add_special_tokens=False)["input_ids"]
    assert tokenizer("one two")["input_ids"] == [answerers.BOS, *own, answerers.EOS]
    assert encode_prompts(tokenizer, ["one two", "[CLS]one two"]) == [[answerers.BOS, *own]] * 2
    (ids,) = encode_prompts(tokenizer, chat_prompts(tokenizer, ["one two"]))
    assert ids.count(answerers.BOS) == 1 and answerers.EOS not in ids
    assert encode_prompts(tokenizer, []) == []


def test_a_tokenizer_that_begins_with_nothing(tokenizer):
    tokenizer.backend_tokenizer.post_processor = processors.Sequence([])
    own = tokenizer("one two", add_special_tokens=False)["input_ids"]
    assert encode_prompts(tokenizer, ["one two", "[CLS]one two"]) == [own, [answerers.BOS, *own]]


@pytest.mark.parametrize(("room", "kept"), [(100, 3), (9, 3), (8, 2), (6, 2), (5, 1), (4, 1), (3, 0), (2, 0)])
def test_whole_passages_are_dropped_from_the_end(tokenizer, room, kept):
    passages = ["one two", "three two", "four one one"]  # 2, 2 and 3 tokens, beside [CLS] and "ten"

    def build(some):
        return " ".join([*some, "ten"])

    found = fit_passages(tokenizer, build, passages, room)
    assert found == (build(passages[:kept]), kept, 3 - kept)


def test_passages_that_cannot_fit(tokenizer):
    with pytest.raises(ValueError, match="the prompt has 2 tokens without any passage; there is room for 1"):
        fit_passages(tokenizer, lambda some: " ".join([*some, "ten"]), ["one"], 1)
