"""Which answers decline to answer: a list of patterns for English and Russian."""

import re
import unicodedata
from collections.abc import Mapping


# At the start of the answer, or after its speaker: "They cannot say" is an answer, "I cannot say" is none.
_I = r"(?:^|\bsorry,? |\b(?:i|we)(?: am|'m| was| are|'re| were)? )(?:really |honestly |simply |just |currently )?"
_NOT = r"(?:do not|don'?t)"
_CANNOT = r"(?:can ?not|can'?t|could not|couldn'?t|unable to|not able to|won'?t|will not)"
_TELL = r"(?:answer|determine|say|tell|provide|find|help|assist|give|confirm|verify|identify|recall|remember|respond)"
_FACTS = r"(?:information|knowledge|answers?|access|data|details|idea|clue|context|records?|mention)"
_SOURCE = r"(?:contexts?|passages?|texts?|documents?|sources?|articles?|excerpts?)"
_STATED = r"(?:mentioned|specified|stated|provided|given|found|included|available|answered)"

_RU_CANNOT = r"(?:не (?:могу|можем|смогу|сможем|в состоянии|способен|способна)|затрудняюсь)"
_RU_TELL = r"(?:ответить|сказать|определить|найти|помочь|дать|назвать|предоставить|подтвердить|установить|вспомнить)"
_RU_FACTS = r"(?:ответа|информации|данных|сведений|контекста|доступа|упоминани[яй])"
_RU_SOURCE = r"(?:контексте|тексте|отрывке|документе|документах|источнике|источниках|статье|фрагменте)"
_RU_STATED = r"(?:указан|упомина|упомянут|сказан|говорит|содержит|сообща|приводит|приведен|найден)\w*"

REFUSALS: Mapping[str, tuple[str, ...]] = {
    "en": (
        rf"{_I}{_NOT} (?:actually |really |currently )?(?:know|recall|remember)\b",
        rf"{_I}(?:{_NOT}|cannot|can'?t) (?:currently |actually )?(?:have|find|see) (?:[\w-]+ ){{0,3}}{_FACTS}\b",
        rf"{_I}(?:have|had|found|find|see) no (?:\w+ ){{0,2}}{_FACTS}\b",
        rf"{_I}{_CANNOT} (?:\w+ )?{_TELL}\b",
        rf"{_I}(?:not sure|not certain|unsure|not aware|not familiar)\b",
        rf"{_I}(?:must |have to )?(?:decline|refuse) to {_TELL}\b",
        rf"\bi(?:'d| would) (?:rather|prefer) not (?:to )?{_TELL}\b",
        r"(?:^|\b(?:question|it|this|answer) )(?:can ?not|can'?t|could not|couldn'?t) be "
        r"(?:answered|determined|inferred|found|known)\b",
        rf"(?:^|\bit(?: is|'s) )(?:impossible|not possible) to (?:{_TELL}|know)\b",
        rf"\b{_SOURCE} (?:\w+ )?(?:does not|do not|doesn'?t|don'?t) (?:\w+ )?"
        r"(?:contain|mention|provide|say|state|specify|include|answer|give|have|indicate)\b",
        rf"\bnot (?:\w+ )?{_STATED} in (?:the |this |these |any )?(?:\w+ ){{0,2}}{_SOURCE}\b",
        r"\b(?:not enough|insufficient|there (?:is|was) no) (?:\w+ )?(?:information|context|data|mention|answer)\b",
        r"\bno (?:\w+ )?information (?:is |was )?(?:available|provided|given|found)\b",
        rf"\bnone of the (?:\w+ )?{_SOURCE}\b",
        rf"^(?:(?:it|this) is )?(?:unknown|unanswerable|not known|not {_STATED})$",
        r"^(?:n/?a|no answer|no idea|no comment)$",
        r"^(?:i'm |i am |we're |we are )?(?:so |very )?sorry$",
    ),
    "ru": (
        r"\b(?:не|ничего не) (?:знаю|знаем|помню|помним|уверен|уверена)\b",
        rf"\b{_RU_CANNOT} (?:\w+ ){{0,3}}{_RU_TELL}\b",
        r"^затрудняюсь$",
        r"\bне удалось (?:\w+ )?(?:найти|получить|дать|определить) (?:\w+ )?(?:ответа?|информаци[июя]|данны[ех])\b",
        rf"\b(?:нет|недостаточно|не хватает|не имею|не имеем) (?:\w+ ){{0,2}}{_RU_FACTS}\b",
        r"\b(?:понятия не имею|не имею (?:ни малейшего )?(?:понятия|представления))\b",
        r"\bневозможно (?:\w+ ){0,2}(?:ответить|определить|сказать|установить|дать)\b",
        r"\bнельзя (?:\w+ ){0,2}(?:ответить|определить|установить)\b",
        r"\bмне (?:\w+ ){0,2}(?:не ?известн|ничего не известн)\w+",
        rf"\b{_RU_SOURCE} (?:\w+ ){{0,3}}не {_RU_STATED}",
        rf"\bне {_RU_STATED} (?:\w+ ){{0,2}}(?:в|во) (?:\w+ ){{0,2}}{_RU_SOURCE}\b",
        r"\b(?:контекст|текст|отрывок|документ|статья|фрагмент)ы? не (?:содерж|упомина|сообща|да[её]т)\w*",
        r"\b(?:отказываюсь|воздержусь|воздерживаюсь|предпочту не|предпочитаю не) (?:от ответа|отвечать|ответить)\b",
        rf"^(?:(?:это )?не ?известно|нет ответа|без ответа|ответа нет|(?:это )?не {_RU_STATED}|н/?д)$",
        r"^(?:извините|простите|к сожалению)$",
    ),
}
"""Patterns of answers that decline, by language, searched in the text as `is_refusal` prepares it."""

_REFUSAL = re.compile("|".join(f"(?:{pattern})" for patterns in REFUSALS.values() for pattern in patterns))
_GUESS = re.compile(
    r"\b(?:but|however|although|though)\b.{0,20}?\b(?:i (?:think|believe|guess|suppose)|i(?:'d| would) (?:say|guess)"
    r"|my (?:best )?guess|it (?:is|was|may|might|could)|it's|perhaps|maybe|probably|possibly)\b"
    r"|\b(?:но|однако|хотя)\b.{0,20}?\b(?:думаю|полагаю|считаю|предположу|кажется|возможно|вероятно|наверное"
    r"|может быть|скорее всего|это)\b"
)
_INSIDE = re.compile(r"\w(?:.*\w)?")
_APOSTROPHES = str.maketrans("’‘ʼ`´", "'''''")


def is_refusal(text: str) -> bool:
    """Whether an answer declines: it says so in English or Russian (`REFUSALS`), or has no letter and no digit.

    The patterns are searched in the text in lower case, its spaces single, its apostrophes straight, and what is
    neither letter nor digit cut off at both ends. An answer that goes on to a guess ("I don't know, but I think it
    was Rome") does not decline. The patterns are words, not understanding: a song called "I Don't Know" declines.

    >>> [is_refusal(text) for text in ("Sorry, I can’t say.", "В тексте нет ответа", "…", "Unknown Pleasures")]
    [True, True, True, False]
    """
    if not any(character.isalnum() for character in text):
        return True
    prepared = " ".join(unicodedata.normalize("NFC", text.lower()).translate(_APOSTROPHES).split())
    inside = "".join(_INSIDE.findall(prepared))  # one match or none
    found = _REFUSAL.search(inside)
    return found is not None and not _GUESS.search(inside, found.end())
