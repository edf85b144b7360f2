"""Final answers in replies, and their comparison with targets.

- `reader`: the kind of answer that an example has, and which part of a reply counts.
- `marks`: where a reply marks its final answer.
- `conclusions`: checks behind an answer, and answers that a reply takes back.
- `choices`: if a text names one of a closed set of answers; `letters`: the same for lettered options.
- `negation`: if a text denies what it names, or only asks for it.
- `polar`: answers to a yes-no question in the question's own words.
- `numerals`: numbers in texts of several languages and scripts.
- `values`: the canonical forms of numbers, lists of words, brackets and other texts.
"""
