"""Final answers in replies, and their comparison with targets.

- `reader`: the kind of answer that an example has, and which part of a reply counts.
- `marks`: where a reply marks its final answer.
- `choices`: if a text names one of a closed set of answers, or denies it.
- `values`: the canonical forms of numbers, lists of words, brackets and other texts.
"""
