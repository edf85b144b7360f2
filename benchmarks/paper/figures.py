"""The paper's results (arXiv 2505.16307v2): accuracies and win rates in percent, step scores from 0 to 1.

Instructions have the names of `pmpo evaluate`: answer_only is the paper's AO, step_by_step its CoT (and the
start of every optimisation), rephrase RaR, step_back Step-Back, best PMPO.
"""

from __future__ import annotations

from collections.abc import Mapping

Figures = Mapping[str, float]

MODEL = "Qwen/Qwen2.5-14B-Instruct"

BBH: Figures = {
    "answer_only": 59.3,
    "step_by_step": 75.2,
    "rephrase": 74.7,
    "step_back": 77.3,
    "OPRO": 77.0,
    "EvoPrompt": 78.0,
    "PromptWizard": 72.8,
    "best": 80.6,
}
"""1 shot, mean over 23 groups of tasks."""

MATH: Mapping[str, Figures] = {
    "gsm8k": {
        "answer_only": 87.1,
        "step_by_step": 90.7,
        "rephrase": 93.2,
        "step_back": 92.5,
        "PromptWizard": 88.2,
        "PromptBreeder": 91.7,
        "OPRO": 93.6,
        "APE": 93.9,
        "best": 94.0,
    },
    "aqua": {
        "answer_only": 76.0,
        "step_by_step": 84.3,
        "rephrase": 84.3,
        "step_back": 81.1,
        "PromptWizard": 79.9,
        "PromptBreeder": 83.1,
        "OPRO": 81.9,
        "APE": 82.7,
        "best": 84.6,
    },
}

ALPACA: Figures = {"start": 31.81, "best": 51.52}
"""Judge: GPT-4 Turbo."""

FEWSHOT: Mapping[int, tuple[float, float]] = {
    0: (73.75, 79.21),
    1: (75.02, 80.69),
    3: (76.69, 81.11),
    5: (76.89, 82.19),
    7: (76.58, 81.59),
    9: (77.97, 82.37),
    16: (78.17, 82.23),
}
"""Base and optimised instruction on BBH by number of shots."""

TRANSFER_MODELS = (
    "Qwen/Qwen2.5-0.5B-Instruct",
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen2.5-14B-Instruct",
    "Qwen/Qwen2.5-32B-Instruct",
)
TRANSFER: tuple[tuple[float, ...], ...] = (
    (58.0, 56.8, 46.4, 50.0, 58.0),
    (61.2, 77.2, 70.0, 64.0, 58.4),
    (70.8, 79.2, 80.0, 85.2, 86.0),
    (91.2, 94.8, 89.6, 96.0, 95.6),
    (97.2, 94.8, 95.2, 97.2, 98.0),
)
"""BBH navigate. Rows: the model that answers. Columns: the model that the instruction was optimised for."""

ABLATION: Figures = {"full": 80.63, "no-tim": 79.05, "no-tim-bca": 77.96, "no-tim-bca-prefloss": 76.74}
"""BBH, cumulative."""

PROCESS_REWARD: Figures = {"answer_only": 0.5510, "step_by_step": 0.9637, "OPRO": 0.9926, "best": 0.9950}
"""GSM8K, mean step score of Qwen2.5-Math-PRM-7B."""
