"""Answers that decline and answers that do not, in English and Russian."""

import re
import time

import pytest

from tithe.evaluation import REFUSALS, is_refusal


DECLINED = {
    "en": [
        "I don't know.",
        "I don’t know the answer to this question.",
        "dont know",
        "Sorry, I really do not know",
        "I'm sorry, but I cannot answer that question.",
        "Cannot answer",
        "As an AI, I don't have access to real-time data.",
        "I do not have enough information to answer.",
        "I have no idea!",
        "Unable to determine.",
        "I am unable to find the date in these passages.",
        "I couldn't find it.",
        "I'm not sure.",
        "Not sure",
        "I must decline to answer.",
        "I'd rather not say.",
        "The question cannot be answered from the given context.",
        "Cannot be determined",
        "It is impossible to say who won.",
        "The provided text does not mention his birthday.",
        "The passages don't say.",
        "His age is not specified in the given passage.",
        "There is not enough information.",
        "There is no mention of it.",
        "No information is available",
        "None of the retrieved documents names him.",
        "**Unknown**",
        "Not mentioned",
        "N/A",
        "No answer.",
        "I'm sorry.",
    ],
    "ru": [
        "Не знаю.",
        "Я не знаю ответа на этот вопрос",
        "К сожалению, я ничего не знаю об этом.",
        "Не могу ответить на этот вопрос.",
        "Затрудняюсь ответить",
        "Затрудняюсь.",
        "Мне не удалось найти ответ.",
        "В тексте нет информации об этом.",
        "Недостаточно данных",
        "У меня нет доступа к интернету.",
        "Понятия не имею!",
        "Невозможно определить по тексту.",
        "Нельзя однозначно ответить.",
        "Мне это неизвестно.",
        "В контексте об этом не говорится.",
        "Дата не указана в данном тексте.",
        "Текст не содержит ответа.",
        "Отказываюсь отвечать.",
        "Неизвестно",
        "Не указано.",
        "Извините…",
    ],
    "none": ["", "  \n", "…", "?!", "—", "***"],
}
ANSWERED = [
    "Paris",
    "42",
    "The Unknown Soldier",
    "Unknown Pleasures",
    "Nobody could find the wreck until 1985.",
    "They cannot say no",
    "Chrysler was unable to pay its debts",
    "a text message",
    "No",
    "None",
    "He was sorry",
    "No. 5",
    "I don't know, but I think it was Rome.",
    "I'm not sure, but my best guess is 1912.",
    "Никто не знает его имени: Бэнкси",
    "Неизвестный солдат",
    "Нет",
    "Мир не может быть куплен",
    "Точно не знаю, но думаю, что это Рим.",
    "Не уверен, но, возможно, 1912",
    "Знаю: Москва",
    "«Текст» — роман Глуховского",
]


@pytest.mark.parametrize("text", [text for texts in DECLINED.values() for text in texts])
def test_these_decline(text):
    assert is_refusal(text) and is_refusal(text.upper()) and is_refusal(f" {text}\n")


@pytest.mark.parametrize("text", ANSWERED)
def test_these_answer(text):
    assert not is_refusal(text)


@pytest.mark.parametrize("language", REFUSALS)
def test_every_pattern_is_needed(language):
    """Each finds an example of its own language, so that none is dead or misspelt."""
    texts = [re.sub(r"^\W+|\W+$", "", text.lower().replace("’", "'")) for text in DECLINED[language]]
    for pattern in REFUSALS[language]:
        assert any(re.search(pattern, text) for text in texts), pattern


def test_long_degenerate_texts_take_no_time():
    start = time.process_time()
    for piece in ("\n ! ", "i don't ", "в тексте ", "but ", "a", "not a "):
        is_refusal("x" + piece * 20_000 + "x")
    assert time.process_time() - start < 5
