"""Reading final answers out of replies: every rule on realistic replies, and every row of the real data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pmpo_ray.config.tasks import TaskConfig
from pmpo_ray.evaluation.answers.reader import AnswerKind, AnswerReader
from pmpo_ray.tasks import load_task
from pmpo_ray.tasks.bbh import DESCRIPTIONS
from pmpo_ray.tasks.corruptions import final_answer
from pmpo_ray.tasks.options import parse_options
from pmpo_ray.types import Example, Kind, Task

Read = Callable[[str], str | None]

PENGUINS = "Who is the oldest?\nOptions:\n(A) Louis\n(B) Bernard\n(C) the young Gwen\n(D) Gwen\n(I) James"
DATES = "What is the date?\nOptions:\n(A) 12/25/1937\n(B) 01/04/1938\n(C) 12/2/1937"
FILMS = "Which film?\nOptions:\n(A) E.T. the Extra-Terrestrial\n(B) A Bug's Life\n(C) I, Robot\n(D) A Bug"
SPEEDS = "What is their speed?\nOptions:\n(A) $32,400\n(B) 27 litres\n(C) 1/2\n(D) -30\n(E) 7 km in 2 h"
TICKETS = ("billing", "bug report", "account access", "praise", "bug")
ALPHABET = "Sort the following words alphabetically: List: pear o'connell apple fig"


def reading(
    kind: Kind, target: str, text: str = "", labels: tuple[str, ...] = (), negatives: tuple[str, ...] = ()
) -> tuple[AnswerReader, Example]:
    example = Example(id="1", input=text, target=target, negatives=negatives)
    return AnswerReader(Task("task", kind, "", "", (example,), labels)), example


def reads(
    kind: Kind, target: str, text: str = "", labels: tuple[str, ...] = (), negatives: tuple[str, ...] = ()
) -> Read:
    reader, example = reading(kind, target, text, labels, negatives)
    return lambda reply: reader.read(reply, example)


LETTER = reads("options", "(B)", PENGUINS)
VALIDITY = reads("options", "valid", "Is it valid?\nOptions:\n- valid \n- invalid")
YES_NO = reads("labels", "yes", labels=("yes", "no"))
OPINION = reads("labels", "negative", labels=("negative", "positive"))
TICKET = reads("labels", "billing", labels=TICKETS)
NUMBER = reads("text", "18")
SORTED = reads("text", "apple fig o'connell pear", ALPHABET)
CLOSING = reads("text", "] >", "Complete the sequence. Input: < [ ( )")
CAPITAL = reads("text", "Paris", "What is the capital of France?")

KINDS: list[tuple[Kind, str, str, tuple[str, ...], AnswerKind, str]] = [
    ("options", "(B)", PENGUINS, (), "letter", "B"),
    ("options", "B", PENGUINS, (), "letter", "B"),
    ("options", "bernard", PENGUINS, (), "letter", "B"),
    ("options", "invalid", "Options:\n- valid \n- invalid", (), "label", "invalid"),
    ("options", "B", "Options:\n- A\n- B", (), "label", "B"),
    ("labels", "bug report", "It crashes.", TICKETS, "label", "bug report"),
    ("labels", "(b)", "Which?", ("(a)", "(b)"), "label", "(b)"),
    ("labels", "B", "Which?", ("A", "B"), "letter", "B"),
    ("text", "1,234.50", "How much?", (), "number", "2469/2"),
    ("text", "1/2", "How much?", (), "number", "1/2"),
    ("text", "She has 3 + 4 = 7.\n#### 7", "How much?", (), "number", "7"),
    ("text", "It is 905.\nThe answer is (B).", SPEEDS, (), "letter", "B"),
    ("text", "apple fig o'connell pear", ALPHABET, (), "words", "apple fig o'connell pear"),
    ("text", "New York", "Where: in New York City?", (), "text", "newyork"),
    ("text", "] >", "Input: < [", (), "brackets", "] >"),
    ("text", "Paris.", "What is the capital?", (), "text", "paris"),
    ("text", "The answer is Paris.", "What is the capital?", (), "text", "paris"),
    ("pairs", "18", "How much?", (), "text", "18"),
]


@pytest.mark.parametrize(("kind", "target", "text", "labels", "answer_kind", "expected"), KINDS)
def test_the_kind_follows_from_the_task_and_the_target(
    kind: Kind, target: str, text: str, labels: tuple[str, ...], answer_kind: AnswerKind, expected: str
) -> None:
    reader, example = reading(kind, target, text, labels)
    assert reader.kind(example) == answer_kind
    assert reader.canonical_target(example) == expected
    assert reader.right(expected, example)
    assert reader.read(target, example) == expected


@pytest.mark.parametrize("read", [LETTER, VALIDITY, YES_NO, NUMBER, SORTED, CLOSING, CAPITAL])
def test_nothing_is_no_answer(read: Read) -> None:
    assert read("") is None
    assert read(" \n\t") is None
    assert read("<think>It is (A) or 18, yes, valid, ] > apple") is None
    assert read("<think>\n\n</think>\n\n") is None


THOUGHTS = [
    ("<think>The answer is 5.</think>\n\nThe answer is 18.", "18"),
    ("<think>5</think>6<think>7</think>18", "18"),
    ("The answer is 5.</think>18", "18"),
    ("<THINKING>It is 5</THINKING> 18", "18"),
    ("<think>5</think> The answer is 18. <think>No, wait", None),
    ("<think>The answer is 18.", None),
    ("[THINK]5[/THINK]18", "18"),
    ("The answer is 18.\n<reasoning>9 + 9, not 5</reasoning>", "18"),
    ("Let me see. <reasoning>9 + 9 = 18</reasoning>", None),
    ("I need no `<think>` here. The answer is 18.", "18"),
]


@pytest.mark.parametrize(("reply", "answer"), THOUGHTS)
def test_thinking_is_not_the_answer(reply: str, answer: str | None) -> None:
    assert NUMBER(reply) == answer


@pytest.mark.parametrize(
    ("read", "answer"), [(LETTER, "B"), (VALIDITY, "invalid"), (NUMBER, "18"), (CAPITAL, "paris")]
)
@pytest.mark.parametrize(
    "mark",
    [
        "The answer is {}",
        "the answer is: {}.",
        "Let me see. 2 and 3 give 6. So the answer is {}. I hope that helps!",
        "The final answer to the question is therefore **{}**.",
        "The correct answer would be '{}'",
        "ANSWER: {}",
        "Final answer: {}",
        "**Answer:** {}",
        "**Answer**: {}\n\nIt follows from the above.",
        "Answer - {}",
        "Some work.\n\n**Final Answer**\n\n{}",
        "### Answer\n`{}`",
        "The correct option is {}",
        "The best choice is “{}”.",
        "#### {}",
        "So we get\n#### **{}**",
        "Hence $\\boxed{{{}}}$.",
        "\\boxed{{\\text{{{}}}}}",
        "\\[\\boxed{{\\textbf{{\\text{{{}}}}}}}\\]\nDone.",
        "<answer>{}</answer>",
        "I see.\n<ANSWER>\n{}\n</ANSWER>\nBye.",
        "<answer>{}",
        "The answer is 3? No. The answer is {}.",
        "The answer is \\boxed{{7}}. Wait, I was wrong: the answer is {}.",
        "Answer: 7\n\nOn reflection: \\boxed{{{}}}",
    ],
)
def test_the_last_mark_gives_the_answer(read: Read, answer: str, mark: str) -> None:
    written = {"B": "(B)", "paris": "Paris"}.get(answer, answer)
    assert read(mark.format(written)) == answer


@pytest.mark.parametrize(
    "reply",
    [
        "The answer is 18. I hope this answer is helpful to you.",
        "It makes 18, and I hope the answer is of use to someone.",
        "The answer is 18. A wrong answer is 7, which forgets the first day.",
        "#### Step 1: count the 5 birds\n#### 2. Add them\nThat makes 18",
        "The answer is 18 \\boxed{} <answer></answer>",
        "She ate 3.\n\nThe answer is\n\\[\n18\n\\]\n\nHere 4 of them were left over.",
        "Answer: Let's think step by step. There are 3 cars and 6 seats each. 3 * 6 = 18 seats.",
        "Answer: Janet has 16 eggs.\nShe sells 9 of them at $2.\nShe makes 18",
        "Answer: Janet makes $18 each day.",
        "The answer is that she makes 9 * 2 = 18 dollars. She started with 16 eggs.",
    ],
)
def test_what_only_looks_like_a_mark_or_goes_on_reasoning(reply: str) -> None:
    assert NUMBER(reply) == "18"


LETTERS = [
    ("B", "B"),
    ("b", "B"),
    ("(b)", "B"),
    ("B.", "B"),
    ("B)", "B"),
    ("[B]", "B"),
    ("**(B)**", "B"),
    ("*B*", "B"),
    ("`B`", "B"),
    ("\\text{B}", "B"),
    ("$\\boxed{\\text{(B) Bernard}}$", "B"),
    ("\\(\\boxed{B}\\)", "B"),
    ("Option B", "B"),
    ("option (b).", "B"),
    ("(B) Bernard", "B"),
    ("B. Bernard", "B"),
    ("B: Bernard", "B"),
    ("B Bernard", "B"),
    ("B, because Bernard is 12.", "B"),
    ("B because he is 12.", "B"),
    ("B - Bernard is older than Louis and Gwen.", "B"),
    ("Answer (B)", "B"),
    ("Choice: B", "B"),
    ("A: (B)", "B"),
    ("- (B) Bernard", "B"),
    ("Bernard", "B"),
    ("bernard.", "B"),
    ("The oldest penguin is Bernard.", "B"),
    ("Bernard\n\nHe is 12, Louis is 7.", "B"),
    ("Louis is 7 and Gwen is 8.\nTherefore:\n**Bernard**", "B"),
    ("I think it is (B), for he is 12.", "B"),
    ("Louis is 7. That leaves Bernard, which is option B", "B"),
    ("A penguin that is 12 is older. So (B).", "B"),
    ("A\n\nA comes first.", "A"),
    ("A", "A"),
    ("A.", "A"),
    ("A, since Louis is old.", "A"),
    ("A Louis", "A"),
    ("I", "I"),
    ("(I)", "I"),
    ("the young Gwen", "C"),
    ("It is Gwen.", "D"),
    ("The answer is a.", "A"),
    ("The answer is A because he is old.", "A"),
    ("The answer is B Bernard", "B"),
    ("The answer is B and not (A).", "B"),
    ("The answer is option B: Bernard, not Louis.", "B"),
    ("The answer is Bernard (B), not Louis (A).", "B"),
    ("The answer is that Bernard is the oldest, which is option (B).", "B"),
    ("The answer is not (A). The answer is (B).", "B"),
    ("Ｂ", "B"),
    ("答案是Ｂ", "B"),
    ("正确答案是（B）。", "B"),
    ("所以选B。", "B"),
    ("答案：B。因为他12岁。", "B"),
    ("La bonne réponse est la B.", "B"),
    ("Die Antwort ist (B), nicht (A).", "B"),
    ("(A)? No. (B)? Yes.", "B"),
    ("Is it (A)? No. So (B).", "B"),
    ("Is it (B)?", None),
    ("(A)? No.", None),
    ("The answer is B.\n\nExplanation:\n(A) Louis is 7.\n(D) Gwen is 8.", "B"),
    ("B\n\nExplanation:\n(A) Louis is 7.\n(D) Gwen is 8.", "B"),
    ("(B) Bernard. Option (A) is not right, he is 7.", "B"),
    ("(A) is wrong, and so (B)", "B"),
    ("(A) Louis: 7\n(B) Bernard: 12\n(D) Gwen: 8\n\n(B) Bernard", "B"),
    ("Louis is 7, Gwen 8. Thus, B is the correct answer, and (A) and (D) are not.", "B"),
    ("(A) is too young, (D) as well. Option B is correct.", "B"),
    # No answer.
    ("A dog ran to the house.", None),
    ("I think that a penguin ran.", None),
    ("I, too, wonder.", None),
    ("The answer is a dog.", None),
    ("The answer is A dog that ran.", None),
    ("I'm not sure. A lot is missing.", None),
    ("(Z)", None),
    ("E", None),
    ("The answer is (Z).", None),
    ("First the answer is (B). Then: the answer is (Z).", None),
    ("(A) or (B)", None),
    ("The answer is (A) or (B).", None),
    ("The answer is (A), (B)", None),
    ("The answer is A/B.", None),
    ("(A) Louis\n(B) Bernard\n(C) the young Gwen\n(D) Gwen\n(I) James", None),
    ("A. Louis\nB. Bernard", None),
    ("It is not (B).", None),
    ("(B) is wrong.", None),
    ("It can't be Bernard", None),
    ("Louis or Bernard, I don't know.", None),
    ("It depends on the table.", None),
    ("Bernardine", None),
    ("f(A) = P(B)", None),
]


@pytest.mark.parametrize(("reply", "answer"), LETTERS)
def test_letters(reply: str, answer: str | None) -> None:
    assert LETTER(reply) == answer


@pytest.mark.parametrize(
    ("text", "reply", "answer"),
    [
        (DATES, "12/25/1937", "A"),
        (DATES, "The date tomorrow is **12/25/1937**.", "A"),
        (DATES, "12/2/1937", "C"),
        (DATES, "12/2/19371", None),
        (FILMS, "E.T. the Extra-Terrestrial", "A"),
        (FILMS, "A Bug's Life", "B"),
        (FILMS, "The answer is A Bug’s Life.", "B"),
        (FILMS, "(B) A Bug's Life", "B"),
        (FILMS, "I, Robot", "C"),
        (FILMS, "A bug", "D"),
        (FILMS, "A", "A"),
        ("Options:\n(A) B\n(B) A", "A", "A"),
        ("Options:\n(A) same\n(B) Same", "B", "A"),
        ("Options:\n(A) not red\n(B) red", "It is not red.", "A"),
        ("Options:\n(A) C++\n(B) C", "C++", "A"),
        ("Options:\n(A) C++\n(B) C", "the language C", "B"),
    ],
)
def test_the_text_of_an_option_stands_for_its_letter(text: str, reply: str, answer: str | None) -> None:
    assert reads("options", "(A)", text)(reply) == answer


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("They fly at 32400.", "A"),
        ("The answer is 32,400 dollars.", "A"),
        ("180 * 180 = 32400\n\\boxed{32400}", "A"),
        ("The answer is 27 liters", "B"),
        ("\\boxed{\\frac{1}{2}}", "C"),
        ("The answer is 0.5", "C"),
        ("The answer is -30", "D"),
        ("The answer is 30", None),
        ("The answer is 85", None),
        ("The answer is x = 32400 m", "A"),
        ("ans: C", "C"),
        ("1 + 26 = 27\n\nD is not it. B is the answer", "B"),
        ("A and E together take 5 hours, 27 in all", None),
    ],
)
def test_an_option_that_is_a_number_stands_for_its_letter(reply: str, answer: str | None) -> None:
    assert reads("text", "So x = 27.\nThe answer is (B).", SPEEDS)(reply) == answer


def test_letters_that_no_input_lists_are_those_of_the_task() -> None:
    read = reads("options", "(B)", "Which of the two?", negatives=("(A)",))
    assert read("The answer is (A).") == "A"
    assert read("The answer is (C).") is None
    assert reads("labels", "B", "Which?", labels=("A", "B"))("A good story is B.") is None
    assert reads("labels", "B", "Which?", labels=("A", "B"))("**B**") == "B"


def test_an_option_cut_at_its_commas_is_read_whole() -> None:
    text = "Options:\n(A) Monsters\n(B) Inc\n(C) Shrek"
    read = reads("options", "Monsters, Inc", text, negatives=("Shrek",))
    assert read("I'd say Monsters, Inc.") == "Monsters, Inc"
    assert read("(C) Shrek") == "Shrek"
    assert read("(A)") is None


LABELS: list[tuple[Read, str, str | None]] = [
    (VALIDITY, "valid", "valid"),
    (VALIDITY, "**Invalid**.", "invalid"),
    (VALIDITY, "- invalid", "invalid"),
    (VALIDITY, "The argument is 'deductively invalid'.", "invalid"),
    (VALIDITY, "Invalid, because the premises do not give it.", "invalid"),
    (VALIDITY, "The answer is deductively valid.", "valid"),
    (VALIDITY, "The conclusion does not follow, so the argument is invalid.", "invalid"),
    (VALIDITY, "The argument is not valid.", "invalid"),
    (VALIDITY, "The argument isn't deductively valid.", "invalid"),
    (VALIDITY, "The answer is: not valid", "invalid"),
    (VALIDITY, "It cannot be considered valid.", "invalid"),
    (VALIDITY, "It is not invalid", "valid"),
    (VALIDITY, "The argument is valid, not invalid.", "valid"),
    (VALIDITY, "The argument is invalid rather than valid.", "invalid"),
    (VALIDITY, "Validity: invalid", "invalid"),
    (VALIDITY, "\\boxed{\\text{invalid}}", "invalid"),
    (VALIDITY, "I don't think the argument is valid", None),
    (VALIDITY, "It is not necessarily valid.", None),
    (VALIDITY, "Valid or invalid? Who knows.", None),
    (VALIDITY, "The answer is valid or invalid.", None),
    (VALIDITY, "The form looks valid at first but the argument is invalid.", None),
    (VALIDITY, "The form looks valid.\n\ninvalid", "invalid"),
    (VALIDITY, "Neither valid nor invalid.", None),
    (VALIDITY, "Its validity is in doubt.", None),
    (VALIDITY, "Valid? No.", "invalid"),
    (VALIDITY, "Is it valid? No, for a premise is missing.", "invalid"),
    (VALIDITY, "Valid? Yes.", "valid"),
    (VALIDITY, "Valid?", None),
    (VALIDITY, "Is it valid or invalid?\nInvalid.", "invalid"),
    (VALIDITY, "Does it follow? No.\n\nThe argument is invalid.", "invalid"),
    (OPINION, "Is it negative? Hard to say.", None),
    (OPINION, "这是positive评论", "positive"),
    (OPINION, "这不是positive。", "negative"),
    (OPINION, "これはpositiveではありません。", "negative"),
    (OPINION, "Das ist nicht positive", "negative"),
    (reads("labels", "正面", labels=("正面", "负面")), "这是一条正面评论。", "正面"),
    (reads("labels", "正面", labels=("正面", "负面")), "不是正面，是负面", "负面"),
    (reads("labels", "café", labels=("café", "bar")), "The label is cafe\u0301.", "café"),
    (reads("labels", "Ａ型", labels=("Ａ型", "Ｂ型")), "答案：A型", "Ａ型"),
    (YES_NO, "Yes", "yes"),
    (YES_NO, "No.", "no"),
    (YES_NO, "Yes, it is plausible. No doubt about it.", "yes"),
    (YES_NO, "No, he plays football", "no"),
    (YES_NO, "No he plays football", "no"),
    (YES_NO, "no\n\nHe plays yes-no games.", "no"),
    (YES_NO, "He plays football.\n\nAnswer: no", "no"),
    (YES_NO, "He plays football. So the answer is no.", "no"),
    (YES_NO, "Plausible: Yes", "yes"),
    (YES_NO, "Yes\n\n...\n\nNo", None),
    (YES_NO, "It isn't plausible.", None),
    (YES_NO, "There is no doubt that he could.", None),
    (YES_NO, "No player could do that.", None),
    (YES_NO, "Nobody knows it; yesterday neither", None),
    (OPINION, "Positive", "positive"),
    (OPINION, "Sentiment: Negative\n\nThe review has positive words too.", "negative"),
    (OPINION, "negative sentiment", "negative"),
    (OPINION, "The review is not negative but positive.", "positive"),
    (OPINION, "This is a non-positive review", "negative"),
    (OPINION, "Positive: fine acting\nNegative: a thin plot", None),
    (OPINION, "Positive: fine acting\nNegative: a thin plot\n\nNegative", "negative"),
    (OPINION, "Answer: It has positive and negative sides. In all it is negative.", None),
    (OPINION, "It is neither positive nor good.", None),
    (OPINION, "The answer is neither positive nor negative.", None),
    (TICKET, "Bug Report", "bug report"),
    (TICKET, "bug-report", "bug report"),
    (TICKET, "category: `bug_report`", "bug report"),
    (TICKET, "This is a bug report.", "bug report"),
    (TICKET, "It is a bug.", "bug"),
    (TICKET, "This message is about account access because of a password", "account access"),
    (TICKET, "The correct label is **billing**", "billing"),
    (TICKET, "billing or praise", None),
    (TICKET, "This is not praise.", None),
    (TICKET, "Not praise, not billing, but bug report", "bug report"),
    (TICKET, "debugging the bugs", None),
    (reads("labels", "True", labels=("True", "False")), "not ( True ) and ( True ) is\nFalse", "False"),
    (reads("labels", "1", labels=("-1", "0", "1")), "Score: -1", "-1"),
    (reads("labels", "1", labels=("-1", "0", "1")), "1", "1"),
    (reads("labels", "1", labels=("1", "2")), "1.5", None),
    (reads("labels", "C++", labels=("C", "C++", "C#")), "The language is C++.", "C++"),
    (reads("labels", "+", labels=("+", "-")), "+", "+"),
    (
        reads("labels", "entailment", labels=("entailment", "not_entailment")),
        "not entailment",
        "not_entailment",
    ),
]


@pytest.mark.parametrize(("read", "reply", "answer"), LABELS)
def test_labels(read: Read, reply: str, answer: str | None) -> None:
    assert read(reply) == answer


NUMBERS = [
    ("18", "18"),
    ("$18", "18"),
    ("18%", "18"),
    ("18 dollars", "18"),
    ("18.", "18"),
    ("18.0", "18"),
    ("+18", "18"),
    ("-5", "-5"),
    ("−5", "-5"),
    ("-$5", "-5"),
    ("$-5", "-5"),
    ("**-5**", "-5"),
    ("1,234", "1234"),
    ("$1,234.50", "2469/2"),
    ("1{,}234", "1234"),
    ("1 234", "1234"),
    ("It costs 1 000 euros", "1000"),
    ("12 345 678", "12345678"),
    ("1\u202f234,50 €", "2469/2"),
    ("1\u00a0234.5", "2469/2"),
    ("1'234'567", "1234567"),
    ("1’234.50", "2469/2"),
    ("1.234,50", "2469/2"),
    ("1.234.567", "1234567"),
    ("12,34,567", "1234567"),
    ("3,5 kg", "7/2"),
    ("0,125", "1/8"),
    ("1234,567", "1234567/1000"),
    ("1.250", "5/4"),
    ("Zusammen sind das 1.250 Euro.", "1250"),
    ("The answer is 3 400 g bags", "3"),
    ("She has 2 100 dollar bills", "100"),
    ("There are 5 100-metre races", "100"),
    ("The answer is x = 2, 3", "2"),
    ("Answer: 3 + 4 = 7. Then 7 + 11 = 18.", "18"),
    ("Lösung: 3 + 4 = 7; 7 + 11 = 18", "18"),
    ("The answer is between 3 and 4.", None),
    ("The answer is 3 or 4.", None),
    ("The answer is 10^3.", None),
    ("The answer is 10^3 = 1000.", "1000"),
    ("18\n\nExplanation: She has 16 and buys 2.", "18"),
    ("She has 18 eggs (16 white and 2 brown).", "18"),
    ("She has (18).", "18"),
    ("小明一共有18个苹果（9个加9个）。", "18"),
    ("9 + 9 = 18\nStep 2: done", "18"),
    ("1,2,3", "3"),
    ("The point is (3,5)", "5"),
    ("1e3", "1000"),
    ("1.5e-3", "3/2000"),
    ("1.2 × 10^3", "1200"),
    ("1.2 \\times 10^{3}", "1200"),
    ("3·10⁵", "300000"),
    ("It is 18 m^2", "18"),
    ("18 m²", "18"),
    ("½", "1/2"),
    ("2½ cups", "5/2"),
    ("１８", "18"),
    ("１，２３４．５", "2469/2"),
    ("＄１８", "18"),
    ("٣٤", "34"),
    ("الإجابة هي ٣٤ تفاحة", "34"),
    ("١٬٢٣٤٫٥", "2469/2"),
    ("\u200f٣٤\u200f", "34"),
    ("उत्तर ३४ है", "34"),
    ("๑๒", "12"),
    ("答案是12。", "12"),
    ("答案是12个，每个3元。", "12"),
    ("所以一共有12个苹果", "12"),
    ("答：小明有3个，又买了9个，一共有12个。", "12"),
    ("答えは12です。3個ずつです。", "12"),
    ("정답은 12개입니다. 3개씩", "12"),
    ("合計は1,250円です", "1250"),
    ("先有3个，答案是十二个。", None),
    ("Die Antwort ist 18, denn 3 fehlen.", "18"),
    ("Die Antwort lautet also: 18", "18"),
    ("Antwort: 18 (von 20)", "18"),
    ("La réponse est 18, car il y en a 3.", "18"),
    ("Réponse : 18, parmi 20", "18"),
    ("La respuesta correcta es 18 de 20.", "18"),
    ("La risposta è 18 su 20.", "18"),
    ("A resposta é 18 de 20.", "18"),
    ("Ответ: 18 из 20", "18"),
    ("Es waren 3. Die Antwort ist zwölf.", None),
    ("Answer: She had 16 eggs and sold 9, which makes $18.", "18"),
    ("7.50", "15/2"),
    (".5", "1/2"),
    ("1/2", "1/2"),
    ("0.5", "1/2"),
    ("2 1/2 cups", "5/2"),
    ("\\frac{1}{2}", "1/2"),
    ("-\\dfrac{1}{2}", "-1/2"),
    ("2\\frac{1}{2}", "5/2"),
    ("\\boxed{\\$18.00}", "18"),
    ("\\boxed{18\\%}", "18"),
    ("\\boxed{18\\text{ dollars}}", "18"),
    ("\\boxed{x = 18}", "18"),
    ("She has 3 + 4 = 7 apples.", "7"),
    ("10 - 5", "5"),
    ("She has 10-5 left", "5"),
    ("There are 12 apples and 3 pears, 15 in all.", "15"),
    ("The answer is 3 + 4 = 7.", "7"),
    ("The answer is 3 apples + 4 apples = 7 apples", "7"),
    ("The answer is 7, since x = 3.", "7"),
    ("The answer is 7 = 3 + 4", "7"),
    ("The answer is 7 apples (x = 3)", "7"),
    ("The answer is 2^5 = 32", "32"),
    ("the answer is -((4)) = -4", "-4"),
    ("Answer: One moment. 3 + 4 = 7", "7"),
    ("The answer is 18 dollars per day for 2 days.", "18"),
    ("The answer is approximately 18.5", "37/2"),
    ("The answer is Rs. 400, 2 more than before", "400"),
    ("#### 1,080", "1080"),
    ("#### -7", "-7"),
    ("#### 12 apples", "12"),
    ("<answer>Janet has 16 eggs. She makes $18.</answer>", "18"),
    ("H2O and x1", None),
    ("many", None),
    ("1/0", None),
    ("The first 3 are gone. The answer is five.", None),
    ("9" * 50, None),
]


@pytest.mark.parametrize(("reply", "answer"), NUMBERS)
def test_numbers(reply: str, answer: str | None) -> None:
    assert NUMBER(reply) == answer


CONCLUSIONS: list[tuple[Read, str, str | None]] = [
    # Checks behind the answer.
    (NUMBER, "She needs 18 boxes.\n\nCheck: 3 * 18 = 54.", "18"),
    (NUMBER, "She needs 18 boxes. (Check: 3 * 18 = 54.)", "18"),
    (NUMBER, "It is 18.\n\n**Verification:**\n\n3 * 18 = 54\n54 / 3 = 18, as said in line 1", "18"),
    (NUMBER, "Answer:\nShe needs 18 boxes.\nTo verify, 3 * 18 = 54", "18"),
    (NUMBER, "一共18个。验算：3×18=54", "18"),
    (NUMBER, "Let me check: 54 / 3 = 18", "18"),
    (NUMBER, "It is 17.\nCheck: 3 * 18 = 54. So it is 18.", "18"),
    (NUMBER, "It is 17.\nCheck: 3 * 17 = 51. The answer is 18.", "18"),
    (NUMBER, "Check the 3 boxes: each has 6, which makes 18.", "18"),
    # Answers that are taken back.
    (NUMBER, "The answer is 17. Wait, 3 * 6 is 18, so it is 18.", "18"),
    (NUMBER, "#### 17\nHmm, 3 * 6 = 18.", "18"),
    (NUMBER, "\\boxed{17}\n\nLet me double-check. 3 * 6 = 18. So 18.", "18"),
    (NUMBER, "The answer is 18. Let me verify this: 18 / 3 = 6. Yes, that is correct.", "18"),
    (NUMBER, "The answer is 17. Wait, there are 3 of them.", None),
    (NUMBER, "The answer is 17. That's wrong.", None),
    (NUMBER, "Answer: Wait, 3 * 6 is 18", "18"),
    (NUMBER, "The answer is 17... wait, 18.", "18"),
    (NUMBER, "The answer is 17. Sorry, it's 18.", "18"),
    (NUMBER, "I get 17. Hmm, no: 18.", "18"),
    (LETTER, "The answer is (A), wait, no, (B).", "B"),
    (NUMBER, "Wait, I misread that. 3 * 6 = 18", "18"),
    (NUMBER, "The answer is 18. They wait for 3 hours.", "18"),
    (NUMBER, "答案是17。等等，3×6=18，所以是18。", "18"),
    (LETTER, "The answer is (A). Wait, Bernard is older, so it's (B).", "B"),
    (LETTER, "(A) Louis. No, that is the youngest. It's (B).", "B"),
    (LETTER, "The answer is A. Actually, B is the right answer.", "B"),
    (LETTER, "The answer is (B). Let me check: (A) is 7, (B) is 12. Yes, correct.", "B"),
    (LETTER, "The answer is (A). Hold on, I am not sure.", None),
    (LETTER, "The answer is (B). Actually it is easy to see.", "B"),
    (VALIDITY, "The answer is valid. Hmm, a premise is missing. The argument is invalid.", "invalid"),
    (VALIDITY, "The answer is valid. On second thought, I can't tell.", None),
    (CAPITAL, "The answer is Paris. Wait, was it Lyon?", None),
    (CAPITAL, "Paris. Wait, or Lyon", "paris.wait,orlyon"),
    (CAPITAL, "The answer is Lyon. Wait, I was wrong: the answer is Paris.", "paris"),
]


@pytest.mark.parametrize(("read", "reply", "answer"), CONCLUSIONS)
def test_the_conclusion_counts(read: Read, reply: str, answer: str | None) -> None:
    assert read(reply) == answer


def asked(question: str, labels: tuple[str, str] = ("yes", "no")) -> Read:
    return reads("labels", labels[0], question, labels=labels)


TRUTHFUL = asked("Question: Fidel lies. Elanor says Fidel lies. Does Elanor tell the truth?")
RETURNED = reads(
    "options",
    "Yes",
    "If you follow these steps, do you return to the start? Turn left.\nOptions:\n- Yes\n- No",
)
LIKELY = asked('Is the following sentence plausible? "Ann Lee kicked the ball."', ("True", "False"))
MEANT = asked("The boss did not care. How would people answer? Did the boss intentionally harm the lake?")

OWN_WORDS: list[tuple[Read, str, str | None]] = [
    (TRUTHFUL, "Elanor lies.", "no"),
    (TRUTHFUL, "Elanor is lying", "no"),
    (TRUTHFUL, "Elanor tells the truth.", "yes"),
    (TRUTHFUL, "Fidel lies, and Elanor says so. Therefore, Elanor is telling the truth.", "yes"),
    (TRUTHFUL, "This means that Elanor does not tell the truth.", "no"),
    (TRUTHFUL, "Elanor doesn't lie", "yes"),
    (TRUTHFUL, "Elanor is telling a lie.", "no"),
    (TRUTHFUL, "The answer is that Elanor lies.", "no"),
    (TRUTHFUL, "She tells the truth.", "yes"),
    (TRUTHFUL, "Elanor lies, because Fidel tells the truth.", "no"),
    (TRUTHFUL, "Fidel lies.", None),
    (TRUTHFUL, "Fidel says Elanor lies.", None),
    (TRUTHFUL, "Fidel claims that Elanor tells the truth.", None),
    (TRUTHFUL, "Suppose Elanor lies. Then Fidel is right.", None),
    (TRUTHFUL, "If Elanor lies, Fidel tells the truth.", None),
    (TRUTHFUL, "Either Elanor lies or Fidel does.", None),
    (TRUTHFUL, "Does Elanor lie?", None),
    (TRUTHFUL, "Elanor lies about Fidel", None),
    (TRUTHFUL, "Elanor lies. Elanor tells the truth.", None),
    (TRUTHFUL, "It is not clear whether Elanor lies.", None),
    (RETURNED, "We walk 2 steps back, so you return to the start.", "Yes"),
    (RETURNED, "You don't return to the start.", "No"),
    (RETURNED, "You will not return to the start.", "No"),
    (RETURNED, "You return to the second place.", None),
    (LIKELY, "The sentence is plausible.", "True"),
    (LIKELY, "The sentence is not plausible.", "False"),
    (LIKELY, "The sentence is implausible, for she swims.", "False"),
    (LIKELY, "It is plausible that she swims.", None),
    (LIKELY, "The ball is plausible.", None),
    (MEANT, "The boss did not intentionally harm the lake.", "no"),
    (MEANT, "The boss intentionally harmed the lake.", "yes"),
    (MEANT, "The boss unintentionally harmed the lake.", "no"),
    (MEANT, "The boss harmed the lake.", None),
    (MEANT, "The boss did not harm the lake.", None),
    (asked("Elanor lies?"), "Elanor lies.", None),
    (asked(""), "It isn't plausible.", None),
]


@pytest.mark.parametrize(("read", "reply", "answer"), OWN_WORDS)
def test_answers_in_the_words_of_the_question(read: Read, reply: str, answer: str | None) -> None:
    assert read(reply) == answer


WORDS = [
    ("apple fig o'connell pear", "apple fig o'connell pear"),
    ("Apple, Fig, O’Connell, Pear.", "apple fig o'connell pear"),
    ("apple\nfig\no'connell\npear", "apple fig o'connell pear"),
    ("1. apple\n2. fig\n3. o'connell\n4. pear", "apple fig o'connell pear"),
    ("- **apple**\n\n- **fig**\n\n- **o'connell**\n\n- **pear**", "apple fig o'connell pear"),
    ('["apple", "fig", "o\'connell", "pear"]', "apple fig o'connell pear"),
    ("apple, fig, o'connell, and pear", "apple fig o'connell pear"),
    ("apple < fig < o'connell < pear", "apple fig o'connell pear"),
    ("apple fig\no'connell pear", "apple fig o'connell pear"),
    ("Here is the sorted list: apple fig o'connell pear\n\nLet me know!", "apple fig o'connell pear"),
    ("pear o'connell apple fig\n\napple fig o'connell pear", "apple fig o'connell pear"),
    ("The answer is apple fig o'connell pear. I sorted them by letter.", "apple fig o'connell pear"),
    ("Answer:\n\n1. apple\n2. fig\n3. o'connell\n4. pear\n\nDone: a f o p", "apple fig o'connell pear"),
    ("The answer is as follows:\n1. apple\n2. fig\n3. o'connell\n4. pear", "apple fig o'connell pear"),
    ("\\boxed{\\text{apple fig o'connell pear}}", "apple fig o'connell pear"),
    ("<answer>\napple\nfig\no'connell\npear\n</answer>", "apple fig o'connell pear"),
    ("fig apple pear o'connell", "fig apple pear o'connell"),
    ("apple fig pear", "apple fig pear"),
    ("The answer is apple fig pear", "apple fig pear"),
    ("So the answer is apple fig o'conel pear.", "apple fig o'conel pear"),
    ("The words apple and fig come before pear in the alphabet", None),
    ("First comes apple, then fig.", None),
    ("I sorted the list.", None),
    ("The first letter of apple: a\nThe first letter of fig: f", None),
]


@pytest.mark.parametrize(("reply", "answer"), WORDS)
def test_lists_of_words(reply: str, answer: str | None) -> None:
    assert SORTED(reply) == answer


BRACKETS = [
    ("] >", "] >"),
    ("]>", "] >"),
    ("`] >`", "] >"),
    ("], >", "] >"),
    ("] >.", "] >"),
    ("< [ ( ) ] >", "] >"),
    ("<[()]>", "] >"),
    ("The answer is ] >.", "] >"),
    ("So the answer is `] >`. It closes (as said) all.", "] >"),
    ("The answer is ] > (two brackets).", "] >"),
    ("The missing brackets are: `]`, `>`", "] >"),
    ('The sequence is closed by "] >" as required', "] >"),
    ("The stack is [ and <.\n\n] >", "] >"),
    ("Input: < [ ( )\nOutput: ] >", "] >"),
    ("\\boxed{] >}", "] >"),
    ("<answer>] ></answer>", "] >"),
    ("> ]", "> ]"),
    ("The answer is ] ] >", "] ] >"),
    ("A square bracket and then an angle bracket (in this order)", None),
    ("stack: < [", None),
    ("< [ ( )", None),
]


@pytest.mark.parametrize(("reply", "answer"), BRACKETS)
def test_brackets(reply: str, answer: str | None) -> None:
    assert CLOSING(reply) == answer


@pytest.mark.parametrize(
    ("target", "reply", "right"),
    [
        ("Paris", " paris\n", True),
        ("Paris", "'Paris'.", True),
        ("Paris", "The answer is Paris. It lies on the Seine.", True),
        ("Paris", "Paris is it", False),
        ("two\nlines", "Answer:\nTwo\n  lines", True),
        ("No. 7 Street", "The answer is No. 7 street.", True),
        ("...", "...", True),
    ],
)
def test_other_text_is_equal_up_to_white_space_and_case(target: str, reply: str, right: bool) -> None:
    reader, example = reading("text", target, "Where?")
    answer = reader.read(reply, example)
    assert answer is not None
    assert reader.right(answer, example) is right


HOSTILE = [
    *(
        "(",
        "((A",
        "[",
        "{",
        "`]",
        "] ",
        "\\boxed{",
        "\\text{",
        "\\frac{1}{",
        "**",
        "__",
        "_",
        "'",
        "“",
        " ",
        "\n",
        ". ",
    ),
    *(
        "<answer>",
        "</answer>",
        "<think>",
        "</think>",
        "####",
        "#### 1\n",
        "answer is ",
        "answer to ",
        "answer\n",
    ),
    *(
        "9",
        "1,000",
        "1/",
        "1 ",
        "-",
        "= ",
        "(A)\n",
        "A ",
        "option ",
        "is the ",
        "so ",
        "not ",
        "not a ",
        "no ",
        "a:b:",
    ),
    *(
        "1'000",
        "1.000",
        "1,2",
        "12,",
        "1 000 ",
        "1e3",
        "10^",
        "1·10",
        "١",
        "十",
        "答案是",
        "是12",
        "½",
        "? ",
        "yes? ",
        "valid? no ",
        "the answer ",
        "antwort ",
        "und 1.000 ",
        "Wait, ",
        "wait\n",
        "Check: ",
        "check 1, ",
        "So 1\n",
        "she tells the truth ",
        "so ,",
    ),
    *("apple ", "apple\n", "bug ", "valid or ", "yes\n", "Bernard\n", "the young "),
]


@pytest.mark.slow
@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_replies_come_to_an_end(piece: str) -> None:
    for read in (LETTER, VALIDITY, YES_NO, TRUTHFUL, TICKET, NUMBER, SORTED, CLOSING, CAPITAL):
        for reply in (
            piece * (15_000 // len(piece)),
            "The answer is " + piece * (15_000 // len(piece)) + "x",
        ):
            answer = read(reply)
            assert answer is None or len(answer) <= 3 * len(reply)


def _every_example(task: Task) -> tuple[Example, ...]:
    return task.examples + task.test_examples


def _ways_to_answer(task: Task, reader: AnswerReader, example: Example) -> Iterator[str]:
    yield example.target
    expected = reader.canonical_target(example)
    answer = example.target if final_answer(example.target) is None or len(example.target) < 4 else expected
    yield f"So the answer is {answer}."
    yield f"Let me think about it.\n\n**Final answer:** {answer}\n"
    yield f"\\boxed{{\\text{{{answer}}}}}" if not set(answer) & set("{}") else answer
    if reader.kind(example) == "letter":
        options = parse_options(example.input)
        assert options is not None
        text = options.texts[options.letters.index(expected)]
        yield from (expected, expected.lower(), f"Option {expected}", f"**({expected})** {text}", text)
        yield from (f"So the answer is {text}.", f"({expected}) is the right one", f"We look.\n{text}")
    if reader.kind(example) == "brackets":
        yield example.input.rpartition(":")[2] + " " + example.target


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        *((f"bbh/{subtask}", None) for subtask in DESCRIPTIONS),
        ("aqua", {"letter"}),
        ("sst2", {"label"}),
        ("subj", {"label"}),
        ("trec", {"label"}),
        ("tickets", {"label"}),
        ("gsm8k", {"number"}),
    ],
)
def test_every_target_of_the_real_data_is_read(data_dir: Path, name: str, kinds: set[str] | None) -> None:
    """In every form, without an exception."""
    task = load_task(TaskConfig(name=name), None if name == "tickets" else str(data_dir), 0)
    reader = AnswerReader(task)
    if kinds is not None:
        assert set(map(reader.kind, _every_example(task))) == kinds
    for example in _every_example(task)[:1500]:
        for reply in _ways_to_answer(task, reader, example):
            answer = reader.read(reply, example)
            assert answer == reader.canonical_target(example), (reply, answer)
            assert reader.right(answer, example)


@pytest.mark.slow
def test_the_kinds_of_all_bbh_rows(data_dir: Path) -> None:
    """Three options of two subtasks contain commas, and the files cut their lists there."""
    kinds: Counter[str] = Counter()
    for subtask in DESCRIPTIONS:
        task = load_task(TaskConfig(name=f"bbh/{subtask}"), str(data_dir), 0)
        kinds.update(map(AnswerReader(task).kind, task.examples))
    assert kinds == {"letter": 4071, "label": 1440, "number": 500, "words": 250, "brackets": 250}


@pytest.mark.parametrize("name", ["bbh/snarks", "aqua"])
def test_options_of_the_same_text_are_one_answer(data_dir: Path, name: str) -> None:
    """One row of snarks gives its sentence twice, one of AQuA-RAT a wrong sum."""
    task = load_task(TaskConfig(name=name), str(data_dir), 0)
    doubled = []
    for example in _every_example(task):
        options = parse_options(example.input)
        assert options is not None
        if len(set(options.texts)) < len(options.texts):
            doubled.append(example)
            reader = AnswerReader(task)
            first = options.letters[options.texts.index(max(options.texts, key=options.texts.count))]
            last = [n for n, text in enumerate(options.texts) if options.texts.count(text) > 1][-1]
            assert reader.read(options.letters[last], example) == first
    assert len(doubled) == 1
