"""The instructions of the workloads: a parent and twelve rewrites of it, as a round of the search has them.

Invariant: the texts differ from their first words on, so that what they share is chance, not construction;
they are 40 to 130 tokens long and suit every BIG-Bench Hard task.
"""

from __future__ import annotations

from pmpo_ray.search.masking import rule_segments, without

PARENT = (
    "Solve the reasoning problem in the input. Read every statement with care and keep track of each object "
    "that is named, of its place and of how it relates to the others. Work out which conclusions the "
    "statements force and which they merely allow. Where possible answers are listed, compare each of them "
    "with your conclusions and choose the only one that fits. Give nothing but the answer, in exactly the "
    "form that the input asks for."
)

REWRITES = (
    "You are a careful logician. Note the facts that the input gives, combine them one after the other, and "
    "discard whatever contradicts them. Reply with the final answer alone, written in the form that the "
    "input uses.",
    "Before you answer, turn each clue into a short note: who or what it is about, and what it rules out. "
    "Then put the notes together. Often one clue fixes an extreme, such as the first, the last or the "
    "largest; begin with it and fill in the rest around it. If the input lists options, answer with the "
    "letter of the right one in brackets; otherwise answer with the bare word, number or list.",
    "The input holds a short problem with exactly one right answer. Find it by elimination: take every "
    "possible answer, look for a statement that makes it impossible, and drop it if there is one. The answer "
    "that is left is yours. Write it down without any explanation.",
    "Think about the input step by step, but keep the steps to yourself. Make sure that you have understood "
    "what is asked, which details matter and which are there only to distract. Do not guess from how likely "
    "something sounds in daily life; rely on what is written alone. When two answers seem possible, go "
    "back to the statements and find the one that tells them apart. Output the answer in the required "
    "format, and stop right behind it. No greeting, no reasons, no full stop that the format does not have.",
    "Act as an evaluator who knows the solution of this exercise. State only that solution, in the "
    "notation of the exercise: an option letter with its brackets, yes or no, or the words in their order.",
    "Go through the input sentence by sentence. After each sentence, bring your picture of the situation "
    "up to date: what has moved, what has been compared, what is now known for certain. At the end, read the "
    "question once more and answer it from that picture. Keep the answer as short as the format permits.",
    "Treat the input as a puzzle with complete information. Everything you need is stated or follows "
    "from what is stated. Arrange the items, dates, words or persons as the statements demand, check your "
    "arrangement against each of the statements, and correct it if one is broken. Then give the answer that "
    "your arrangement leads to, and nothing besides.",
    "Answer the question in the input correctly. Pay attention to small words such as not, only, before, "
    "after, left, right, more and less, since a single one of them can turn the answer around. If "
    "there are options, pick one; never pick two, and never make up your own.",
    "Determine the right answer by strict deduction. A claim counts as true only if the given statements "
    "leave no other possibility, and as false if they exclude it. Do the deduction silently, verify it once "
    "from the end to the beginning, and report the result in a single line.",
    "Here is a problem from a collection of hard tasks for language models. People who solve it first "
    "restate it in their own words, then write down the constraints, then try the most constrained part, and "
    "finally test the candidate answer. Follow their example in your head. Your visible reply must consist "
    "of the answer only, spelled the way the input spells it: for multiple choice that is the bracketed "
    "letter, for a yes-or-no question one word, for sorting the full list separated by blanks.",
    "Your task: read the description, understand the relations in it, and decide. Be exact about order and "
    "number. Prefer what can be proved to what is plausible. Respond with the answer in the wanted form.",
    "Imagine that you have to explain the input to a friend with paper and pencil. You would draw a line or "
    "a small table and enter each fact where it belongs. Do this in thought, until every fact has found "
    "its place and no two of them collide. The answer can now be read off. Write it, and only it.",
)

INSTRUCTIONS = (PARENT, *REWRITES)


def sentences(text: str) -> tuple[str, ...]:
    """An instruction's sentences."""
    return tuple(segment.text for segment in rule_segments(text, max_segments=len(text)))


def candidates(count: int) -> tuple[str, ...]:
    """`count` different instructions, of which some are hard to tell apart: the thirteen, and then each of
    them without one of its sentences. There are 64 at most."""
    shortened = (
        without(text, segment, mode="drop", mask_token="")
        for text in INSTRUCTIONS
        for segment in rule_segments(text, max_segments=len(text))
    )
    return tuple(dict.fromkeys((*INSTRUCTIONS, *shortened)))[:count]
