"""Held-out results: outcomes of instructions on test examples, and the statistics on them.

- `evaluators`: the outcome of every example, by likelihood or by generation; the method that fits a task.
- `judge`: the outcome of every example by an AlpacaEval judge, with the references to compare with.
- `grading`: if a generated reply is right, by rules or by an evaluator model.
- `answers/`: the final answer in a reply, and if it equals the target.
- `alpaca`: win rates, computed by the package alpaca_eval; `alpaca_judge`: the connection to the judge model;
  `alpaca_rows`: the format of outputs, pairs and annotations.
- `instructions`: which instructions are compared, and their names.
- `conditions`: which outcomes can be reused, by a key of everything that they depend on.
- `statistics`: intervals, p-values and their correction; it does not know what was measured.
- `summary`: which instructions are compared on which values; `summary_json`: the same as JSON.
"""
