"""A hundred replies of kinds that models of all sizes write, with the readings that a person would make.

The rules were made with `KNOWN` in view. `UNSEEN` was written before them and first read when they were done.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pmpo_ray.evaluation.answers.reader import AnswerReader
from pmpo_ray.types import Example, Kind, Task


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and one of its answers."""

    kind: Kind
    text: str
    target: str
    labels: tuple[str, ...] = ()

    def read(self, reply: str, finished: bool) -> str | None:
        example = Example("1", self.text, self.target)
        reader = AnswerReader(Task("task", self.kind, "", "", (example,), self.labels))
        return reader.read(reply, example, finished=finished)


COUNT = Question("text", "A shelf has 6 boards with 7 jars each. 11 jars are empty. How many are full?", "31")
PRICE = Question("text", "What do 4 crates cost in all?", "1250")
BOXES = Question(
    "options",
    "Which box is the heaviest?\nOptions:\n(A) the red box\n(B) the green box\n(C) the blue box\n"
    "(D) the grey box",
    "(B)",
)
LOGIC = Question("options", "Is the argument valid?\nOptions:\n- valid\n- invalid", "invalid")
LIARS = Question(
    "labels",
    "Mira lies. Tarek says Mira tells the truth. Oda says Tarek lies. Does Oda tell the truth?",
    "Yes",
    ("Yes", "No"),
)
WALK = Question(
    "options",
    "If you follow these instructions, do you return to the starting point? Take 2 steps. Turn around. "
    "Take 2 steps.\nOptions:\n- Yes\n- No",
    "Yes",
)
SPORT = Question(
    "labels", 'Is the following sentence plausible? "Lena Maurer shot the puck in."', "yes", ("yes", "no")
)
MOOD = Question("labels", "A film that never ends.", "negative", ("positive", "negative", "neutral"))
TOWN = Question("text", "In which town was the treaty signed?", "Lisbon")
ORDER = Question("text", "Sort the words: plum kiwi fig", "fig kiwi plum")


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with the right reading, None for one that has to stay unread."""

    question: Question
    text: str
    answer: str | None
    finished: bool = True


KNOWN = (
    # Numbers.
    Reply(COUNT, "6 * 7 = 42 jars, and 42 - 11 = 31. So 31 jars are full.", "31"),
    Reply(COUNT, "一共有6×7=42个，42-11=31。答案是31。", "31"),
    Reply(COUNT, "答案：３１个", "31"),
    Reply(COUNT, "الجواب هو ٣١", "31"),
    Reply(COUNT, "उत्तर: ३१", "31"),
    Reply(COUNT, "答えは31です。6枚の棚板があります。", "31"),
    Reply(COUNT, "Die Antwort ist 31. Es waren 42, und 11 sind leer.", "31"),
    Reply(COUNT, "La réponse est donc 31 bocaux, car 11 sont vides.", "31"),
    Reply(COUNT, "La respuesta es **31**, porque 11 de 42 están vacíos.", "31"),
    Reply(COUNT, "She fills 31 jars.\n\nCheck: 31 + 11 = 42.", "31"),
    Reply(COUNT, "The answer is 32. Wait, 42 - 11 is not 32. So the number of full jars is 31.", "31"),
    Reply(
        COUNT, "6 * 7 = 42\n42 - 11 = 31\n\\boxed{31}\n\nVerification: 31 + 11 = 42, as it should be.", "31"
    ),
    Reply(COUNT, "First we multiply the 6 boards by the 7 jars", None, finished=False),
    Reply(COUNT, "The answer is 3", None, finished=False),
    Reply(COUNT, "I would have to know how big the jars are.", None),
    Reply(PRICE, "The total comes to 1 250 euros.", "1250"),
    Reply(PRICE, "Insgesamt kosten sie 1.250,00 €.", "1250"),
    Reply(PRICE, "The total is 1'250.00 francs", "1250"),
    Reply(PRICE, "Zusammen kostet es 3,5 Euro", "7/2"),
    Reply(PRICE, "They cost $1,250 (that is $312.50 each).\n\nFinal answer: $1,250", "1250"),
    # Letters.
    Reply(BOXES, "The answer is (A). Wait, the green box holds the stones, so it's (B).", "B"),
    Reply(BOXES, "Ｂ", "B"),
    Reply(BOXES, "正确答案是（B）。", "B"),
    Reply(BOXES, "Is it (A)? No, the red box is empty. It must be (B).", "B"),
    Reply(BOXES, "Die richtige Antwort ist B) the green box", "B"),
    Reply(BOXES, "The answer is (A). Hmm, let me weigh them again.", None),
    Reply(BOXES, "It is (A) or (B), and nothing tells which.", None),
    Reply(BOXES, "A box is heavy if it is full.", None),
    # Closed sets.
    Reply(LOGIC, "Valid? No.", "invalid"),
    Reply(LOGIC, "Valid? Yes, by modus tollens.", "valid"),
    Reply(LOGIC, "Is it valid? That depends on the second premise.", None),
    Reply(LIARS, "Mira lies, so Tarek lies. Oda says just that. Therefore, Oda tells the truth.", "Yes"),
    Reply(LIARS, "Oda lies.", "No"),
    Reply(LIARS, "Tarek lies.", None),
    Reply(LIARS, "Mira says that Oda lies.", None),
    Reply(WALK, "You walk back the same 2 steps. So you return to the starting point.", "Yes"),
    Reply(WALK, "You do not return to the starting point.", "No"),
    Reply(SPORT, "A puck belongs to ice hockey, and so does she. The sentence is plausible.", "yes"),
    Reply(SPORT, "The sentence is not plausible, because she plays tennis.", "no"),
    Reply(SPORT, "If she plays hockey, the sentence is plausible.", None),
    Reply(MOOD, "这条评论是negative。", "negative"),
    Reply(MOOD, "Positive? Negative? One can't say.", None),
    # Thoughts.
    Reply(COUNT, "<thinking>42 minus 11, so 31</thinking>\n\n31", "31"),
    Reply(COUNT, "<reasoning>\n42 - 11 = 31\n</reasoning>\nThe answer is 31.", "31"),
    Reply(COUNT, "[THINK]42? No.[/THINK]31 jars", "31"),
    Reply(COUNT, "◁think▷Maybe 42, or 30.◁/think▷The answer is 31.", "31"),
    Reply(COUNT, "analysisWe have 42 jars, 11 are empty.assistantfinal31 jars are full.", "31"),
    Reply(COUNT, "<seed:think>The answer is 31, I believe", None),
    # Texts and lists.
    Reply(TOWN, "Die Antwort lautet: Lisbon.", "lisbon"),
    Reply(ORDER, "<thought>plum kiwi fig, f comes first</thought>fig, kiwi, plum", "fig kiwi plum"),
)

UNSEEN = (
    # Numbers.
    Reply(COUNT, "There are 42 jars on the shelf. 11 of them are empty, which leaves 31 full jars.", "31"),
    Reply(COUNT, "小明一共有42个罐子，其中11个是空的，所以还剩31个。", "31"),
    Reply(COUNT, "最终答案为：31个罐子。因为11个是空的。", "31"),
    Reply(COUNT, "答：满的有31个。", "31"),
    Reply(COUNT, "正解は３１です", "31"),
    Reply(COUNT, "Réponse finale : 31", "31"),
    Reply(COUNT, "La risposta corretta è 31: ne restano 42 - 11.", "31"),
    Reply(COUNT, "A resposta final é 31 potes, pois 11 estão vazios.", "31"),
    Reply(COUNT, "Lösung: 6 · 7 = 42; 42 − 11 = 31", "31"),
    Reply(COUNT, "The answer is thirty-one. The shelf has 6 boards.", None),
    Reply(COUNT, "31 jars are full.\n\nTo verify: 31 + 11 = 42 and 42 / 7 = 6.", "31"),
    Reply(COUNT, "#### 30\n\nActually, 42 - 11 = 31, so the right number is 31.", "31"),
    Reply(COUNT, "The answer is 31. Wait, let me check that: 42 - 11 = 31. Yes, that is right.", "31"),
    Reply(COUNT, "The answer is 42. Hold on, I forgot the empty ones.", None),
    Reply(COUNT, "6 boards with 7 jars make 42 jars. From these we take", None, finished=False),
    Reply(COUNT, "42 - 11 = 31, so we are left with **31 jars**. (Each board has 7.)", "31"),
    Reply(PRICE, "Le total est de 1 250,00 €.", "1250"),
    Reply(PRICE, "In totale fanno 1.250 euro.", "1250"),
    Reply(PRICE, "The price is 12,50 euros, not more.", "25/2"),
    Reply(PRICE, "Total = ₹1,250/-", "1250"),
    Reply(PRICE, "合計は1,250円です。", "1250"),
    Reply(PRICE, "4 crates at $312.50 come to \\$1{,}250.00.", "1250"),
    Reply(PRICE, "The answer is $1\\,250$.", "1250"),
    # Letters.
    Reply(BOXES, "My first guess was (C). No wait, that one is empty. The answer must be (B).", "B"),
    Reply(BOXES, "**Answer: C**\n\nCorrection: the blue box is empty, so the correct choice is **B**.", "B"),
    Reply(BOXES, "答案：Ｂ", "B"),
    Reply(BOXES, "(A)? No. (C)? No. (D)? No. (B)? Yes.", "B"),
    Reply(BOXES, "The green box outweighs all the others.", "B"),
    Reply(BOXES, "Neither (A) nor (C) is heavy.", None),
    Reply(BOXES, "A lot of boxes are heavy. Which one do you mean?", None),
    Reply(BOXES, "Let us compare them. (A) weighs 3 kg, (B) weighs", None, finished=False),
    # Closed sets.
    Reply(LOGIC, "Does it follow? No. The argument is invalid.", "invalid"),
    Reply(LOGIC, "Invalid? No.", "valid"),
    Reply(LOGIC, "An argument is valid if its form is. I can't tell here.", None),
    Reply(LIARS, "Since Tarek lies and Oda says so, Oda is telling the truth.", "Yes"),
    Reply(LIARS, "Oda does not tell the truth.", "No"),
    Reply(LIARS, "It remains open whether Oda tells the truth.", None),
    Reply(LIARS, "**Oda tells the truth.**", "Yes"),
    Reply(WALK, "We end up 4 steps away, so you don't return to the starting point.", "No"),
    Reply(WALK, "You will return to the starting point if you turn around twice more.", None),
    Reply(SPORT, "The sentence is implausible.", "no"),
    Reply(SPORT, "Lena Maurer plays hockey. It is plausible.", "yes"),
    Reply(MOOD, "Negativity is not the point of this text.", None),
    Reply(MOOD, "这不是positive，而是negative。", "negative"),
    # Thoughts.
    Reply(BOXES, '<think lang="en">(A) or (B)?</think>(B)', "B"),
    Reply(COUNT, "We subtract 11 from 42 and get 31.</reasoning>\n31", "31"),
    Reply(
        COUNT,
        "<|channel|>analysis<|message|>Perhaps 42.<|end|><|start|>assistant<|channel|>final<|message|>31",
        "31",
    ),
    Reply(COUNT, "analysisThe user wants the number of full jars, 42 - 11 = 31", None),
    Reply(COUNT, "I was told to use `<think>` tags, but 31 is easy enough. The answer is 31.", "31"),
    # Texts and lists.
    Reply(TOWN, "<|begin_of_thought|>Porto? No.<|end_of_thought|>Answer: Lisbon", "lisbon"),
)


def test_there_are_a_hundred() -> None:
    assert (len(KNOWN), len(UNSEEN)) == (50, 50)


@pytest.mark.parametrize("reply", [*KNOWN, *UNSEEN], ids=lambda reply: reply.text[:40])
def test_replies_are_read_as_a_person_reads_them(reply: Reply) -> None:
    assert reply.question.read(reply.text, reply.finished) == reply.answer
