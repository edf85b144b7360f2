"""The search of one task: the method, without Ray, files or a clock.

In the order of a round:

- `setup`: the inputs of a search.
- `loop`: Algorithm 1, round by round, and the outcome.
- `finished_rounds`, `round`: what earlier rounds left, and the round in the making.
- `mask_analysis`, `masking`: the importance of every segment; splitting an instruction, removing a segment.
- `hard_cases`: the examples to write for.
- `propose`, `operators`: the new candidates of a round, and what an operator gets and gives.
- `compose`, `demonstrations`: the operators that write nothing.
- `writing`, `writers`: the loop that asks a model to write, and what it is asked for.
- `meta_prompts`: what the meta-prompts of all writers share, and the parsing of the replies.
- `gate`, `sense`, `relevance`: the texts that may become candidates, and those that are no instructions.
- `readings`, `readability`: how likely texts are under the scorer, and what that counts beside the loss.
- `scoring`, `objectives`, `calibration`: losses from log-likelihoods, minus the bias towards labels if set.
- `selection`: survivors, ids, and the end of a search.
- `budget`: what fits into the tokens and seconds that are left.
- `seeds`: seeds of samples.
"""
