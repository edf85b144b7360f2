"""The process reward of worked solutions: the probability, by a model that judges steps, that a step is
right.

Invariants:
- every step has exactly one score, read at the last token of the separator that closes it;
- a separator or a special token written inside a problem or a step is plain text: it closes nothing, ends no
  turn, and adds no score;
- the scores of a solution depend only on its problem and itself;
- code that comes with a model runs only under trust_remote_code.

There are two layouts. "chat": system turn, problem as user turn, and an assistant turn of steps, each closed
by the separator, as in Qwen2.5-Math-PRM. "plain": beginning-of-sequence token if the tokenizer has one,
problem, steps each closed by the separator, with nothing between, as in the rows of TRL's PRM trainer, even
for tokenizers with a chat template.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from pmpo_ray.engines.answer_tree import Tokens
from pmpo_ray.engines.prompt_encoder import PromptEncoder
from pmpo_ray.engines.weights.folder import ResolvedModel
from pmpo_ray.engines.weights.loading import load_tokenizer, placed_on
from pmpo_ray.engines.weights.quiet import quiet_transformers
from pmpo_ray.engines.weights.resolve import resolve_model
from pmpo_ray.errors import ConfigError, DataError, EngineError, ModelError
from pmpo_ray.text import error_line

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pmpo_ray.engines.hf.loading import LoadedModel
    from pmpo_ray.types import EngineInfo

StepLayout = Literal["chat", "plain"]

_QWEN = "Qwen2ForProcessRewardModel"
_QWEN_SEPARATOR = "<extra_0>"
_TRL_SEPARATOR = "\n"
# The system turn with which Qwen's models for mathematics were trained.
_SYSTEM = r"Please reason step by step, and put your final answer within \boxed{}."

_GOOD = frozenset({"1", "label_1", "positive", "true", "correct", "right", "good", "valid", "yes", "+"})
_BAD = frozenset({"0", "label_0", "negative", "false", "incorrect", "wrong", "bad", "invalid", "no", "-"})

# The errors of reading an untrusted folder and of running code that comes with it.
_FOREIGN_ERRORS = (
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, slots=True)
class StepScores:
    """The probability (0 to 1) that each step is right, in their order; never empty. `tokens` is the
    number of tokens that the model read."""

    scores: tuple[float, ...]
    tokens: int

    @property
    def mean(self) -> float:
        """The process reward of the solution."""
        return fmean(self.scores)


def split_steps(solution: str) -> tuple[str, ...]:
    """The lines of a solution, stripped of white space; empty lines are no steps."""
    # Not splitlines: badly escaped TeX turns the start of "\frac" into a form feed, which ends no step.
    return tuple(step for line in solution.split("\n") if (step := line.strip()))


class ProcessRewardModel:
    """A model that classifies every token into two classes, one of which means that the step ending there is
    right.

    For one thread. `separator` closes a step: None means "<extra_0>" if the tokenizer has that token, else a
    newline. `layout` None means "chat" if the separator contains a token that was added to the vocabulary and
    there is a chat template, else "plain".

    Raises ConfigError if the separator is empty, ModelError if the model or its tokenizer is not suitable.
    """

    def __init__(
        self, loaded: LoadedModel, *, separator: str | None = None, layout: StepLayout | None = None
    ) -> None:
        from pmpo_ray.engines.hf.devices import context_length

        self._loaded = loaded
        self._context = context_length(loaded.model)
        self._text = _StepEncoder(loaded.tokenizer, separator, layout)
        self._good = _good_class(loaded.model.config.id2label or {})
        self._check_classes()

    @classmethod
    def load(
        cls,
        name: str,
        *,
        separator: str | None = None,
        layout: StepLayout | None = None,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
    ) -> ProcessRewardModel:
        """The model `name`: a folder or a hub name of Qwen2.5-Math-PRM, of a token classification model, or
        of a model with custom code.

        Raises ModelError if it is not available or not usable, ResourceError if its device is not available,
        and ConfigError as above.
        """
        from pmpo_ray.engines.hf.devices import choose_device, choose_dtype
        from pmpo_ray.engines.hf.loading import LoadedModel

        resolved = resolve_model(name, revision=revision, code=trust_remote_code, progress=False)
        chosen = choose_device(device)
        model = _load(resolved, choose_dtype(dtype, chosen), chosen, trust_remote_code)
        tokenizer = load_tokenizer(resolved, trust_remote_code=trust_remote_code)
        return cls(LoadedModel(model, tokenizer, resolved), separator=separator, layout=layout)

    def info(self) -> EngineInfo:
        """The description of this model, with its layout."""
        return self._loaded.info(self._text.layout)

    def score(self, problem: str, solution: str) -> StepScores:
        """Scores of the lines of `solution`, a worked solution of `problem`.

        Raises DataError if no line has text, EngineError if the model's context is too short or its numbers
        overflow.
        """
        steps = split_steps(solution)
        if not steps:
            raise DataError("a solution without any text has no steps to score; leave it out or answer again")
        ids, ends = self._text.encode(problem, steps)
        if len(ids) > self._context:
            raise EngineError(
                f"a problem and its solution of {len(ids)} tokens do not fit into the context of "
                f"{self._context} tokens of the process reward model {self._loaded.resolved.name!r}: "
                "shorten the answers, or use a model with a longer context"
            )
        scores = self._probabilities(ids, ends)
        if not all(map(math.isfinite, scores)):
            raise EngineError(
                f"the process reward model {self._loaded.resolved.name!r} gives scores that are no numbers "
                f"in {self.info().dtype}; use dtype float32 or bfloat16"
            )
        return StepScores(scores, len(ids))

    def _probabilities(self, ids: Tokens, ends: Tokens) -> tuple[float, ...]:
        import torch

        logits = self._logits(ids)[0, list(ends)]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        return tuple(logprobs[:, self._good].exp().tolist())

    def _logits(self, ids: Tokens) -> torch.Tensor:
        import torch

        model: Any = self._loaded.model
        with torch.inference_mode():
            output = model(input_ids=torch.tensor([ids], device=model.device))
        logits: torch.Tensor = output.logits if hasattr(output, "logits") else output[0]
        return logits

    def _check_classes(self) -> None:
        """Raises ModelError if the model can't run or does not give every token two classes."""
        import torch

        name = self._loaded.resolved.name
        ids = self._text.separator * 2
        try:
            logits = self._logits(ids)
        except _FOREIGN_ERRORS as error:
            raise ModelError(
                f"model {name!r} cannot be run as a process reward model: {error_line(error)}; use one that "
                "fits the installed transformers"
            ) from error
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else ()
        if len(shape) != 3 or shape[:2] != (1, len(ids)):
            raise ModelError(
                f"model {name!r} gives no classes of single tokens; a process reward needs a model that does"
            )
        if shape[2] != 2:
            raise ModelError(
                f"model {name!r} gives every token {shape[2]} classes, but a process reward needs 2 (wrong, "
                "right); use a model that was trained to judge steps"
            )


class _StepEncoder:
    """A problem and its steps as token ids, with the places of the scores.

    The pieces are tokenised separately, so that their ends are known whatever the tokenizer would merge.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, separator: str | None, layout: StepLayout | None
    ) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_vocab()
        if separator is None:
            separator = _QWEN_SEPARATOR if _QWEN_SEPARATOR in added else _TRL_SEPARATOR
        if not separator:
            raise ConfigError("evaluation.process_reward.separator: empty; give a token or a text")
        self.separator: Tokens = tuple(tokenizer(separator, add_special_tokens=False)["input_ids"])
        if not self.separator:
            raise ModelError(
                f"model {tokenizer.name_or_path!r}: its tokenizer makes no token of the separator "
                f"{separator!r}; set evaluation.process_reward.separator to the one it was trained with"
            )
        marked = [token for token, index in added.items() if index in self.separator]
        _make_special(tokenizer, marked)
        self.layout: StepLayout = layout or ("chat" if marked and tokenizer.chat_template else "plain")
        if self.layout == "chat" and not tokenizer.chat_template:
            raise ModelError(f"model {tokenizer.name_or_path!r} has no chat template; use the layout plain")
        self._chat = PromptEncoder(tokenizer) if self.layout == "chat" else None

    def encode(self, problem: str, steps: tuple[str, ...]) -> tuple[Tokens, Tokens]:
        """Token ids, and the index of the last token of each step's separator."""
        ids = list(self._beginning(problem.strip()))
        ends = []
        for step in steps:
            ids += [*self._step(step), *self.separator]
            ends.append(len(ids) - 1)
        if self._chat is not None:
            # No influence on a causal model, but a bidirectional model was trained with it.
            ids += self._chat.end_of_turn
        return tuple(ids), tuple(ends)

    def _beginning(self, problem: str) -> Tokens:
        if self._chat is not None:
            return self._chat.context(_SYSTEM, problem)
        # The trainer adds it for every tokenizer that has one, even if the tokenizer itself would not.
        start = self._tokenizer.bos_token_id
        return (() if start is None else (start,)) + self._plain(problem)

    def _step(self, text: str) -> Tokens:
        if self._chat is not None:
            return self._chat.behind_special(text)
        return self._plain(text)

    def _plain(self, text: str) -> Tokens:
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])


def _make_special(tokenizer: PreTrainedTokenizerBase, tokens: list[str]) -> None:
    """Mark added tokens as special: only those are split into plain characters inside a text."""
    from tokenizers import AddedToken

    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in tokens], special_tokens=True
    )


def _good_class(labels: Mapping[Any, str]) -> int:
    """The class that means "right": by its name or that of the other class, else 1."""
    names = [str(labels.get(index, "")).strip().lower() for index in (0, 1)]
    first_is_good = names[0] in _GOOD or names[1] in _BAD
    second_is_good = names[1] in _GOOD or names[0] in _BAD
    return 0 if first_is_good and not second_is_good else 1


def _load(resolved: ResolvedModel, dtype: torch.dtype, device: str, code: bool) -> PreTrainedModel:
    """The model in evaluation mode on `device`, without gradients and without a cache.

    Raises ModelError if the folder holds no model that classifies tokens, needs custom code, lacks weights,
    or doesn't fit.
    """
    from safetensors import SafetensorError

    factory = _factory(resolved, code)
    try:
        with quiet_transformers():
            model, report = factory.from_pretrained(
                str(resolved.path),
                dtype=dtype,
                trust_remote_code=code,
                local_files_only=True,
                output_loading_info=True,
            )
            if type(model).__module__.startswith("transformers_modules."):
                _restore_buffers(model)
    except (*_FOREIGN_ERRORS, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise _needs_code(resolved) from error
        raise ModelError(
            f"model {resolved.name!r}: the process reward model in {resolved.path} cannot be loaded: "
            f"{error_line(error)}; use one that fits the installed transformers, and a complete folder of it"
        ) from error
    # Missing and misshapen weights are filled with random numbers, with a warning at most.
    missing = sorted(map(str, (*report["missing_keys"], *report["mismatched_keys"])))
    if missing:
        raise ModelError(
            f"model {resolved.name!r}: {resolved.path} lacks {len(missing)} of the parameters that a process "
            f"reward model needs (such as {error_line(missing[0])}); get the complete model"
        )
    # Without a cache less memory is held, and code of older models that can't create one runs as well.
    model.config.use_cache = False
    return placed_on(device, model, resolved)


def _factory(resolved: ResolvedModel, code: bool) -> Any:
    """The class that loads the model, by its config.json."""
    from transformers import AutoModel, AutoModelForTokenClassification

    file = resolved.path / "config.json"
    try:
        config = json.loads(file.read_bytes())
        architectures = [str(name) for name in config.get("architectures") or ()]
        custom_code = dict(config.get("auto_map") or {})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(
            f"{file}: not a readable model configuration ({error_line(error)}); get it again"
        ) from error
    if _QWEN in architectures:
        return _qwen_class()
    if (
        any(name.endswith("ForTokenClassification") for name in architectures)
        or "AutoModelForTokenClassification" in custom_code
    ):
        return AutoModelForTokenClassification
    if "AutoModel" not in custom_code:
        kind = ", ".join(architectures) or "no kind of model"
        raise ModelError(
            f"model {resolved.name!r}: its config.json names {error_line(kind)}, which judges no steps; use "
            "a token classification model such as TRL's PRM trainer makes, or Qwen/Qwen2.5-Math-PRM-7B"
        )
    if not code:
        # transformers would use a built-in class instead, without the head that gives the scores.
        raise _needs_code(resolved)
    return AutoModel


def _needs_code(resolved: ResolvedModel) -> ModelError:
    return ModelError(
        f"model {resolved.name!r} needs Python code that comes with it; if you trust its authors, "
        "set `evaluation.process_reward.trust_remote_code: true`"
    )


def _qwen_class() -> Any:
    """Qwen2.5-Math-PRM on the Qwen2 of the installed transformers.

    The code that comes with it was written for transformers 4: it calls cache methods that no longer exist,
    and its position tables, which are in no file, would silently stay unset. None of it is run.
    """
    import torch
    from transformers import Qwen2Config, Qwen2Model, Qwen2PreTrainedModel

    class QwenProcessRewardModel(Qwen2PreTrainedModel):  # type: ignore[no-untyped-call]
        def __init__(self, config: Qwen2Config) -> None:
            super().__init__(config)
            self.model = Qwen2Model(config)
            self.score = torch.nn.Sequential(
                torch.nn.Linear(config.hidden_size, config.hidden_size),
                torch.nn.ReLU(),
                torch.nn.Linear(config.hidden_size, 2),
            )
            self.post_init()  # type: ignore[no-untyped-call]

        def forward(self, input_ids: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.score(self.model(input_ids=input_ids).last_hidden_state),)

    return QwenProcessRewardModel


def _restore_buffers(model: PreTrainedModel) -> None:
    """Give the buffers that are in no file the values that the model's code sets.

    transformers first creates a model without memory, which loses them; its built-in models set them again,
    code that was written for older versions doesn't.
    """
    from accelerate import init_empty_weights  # type: ignore[import-untyped]

    stored = model.state_dict().keys()
    lost = {name: buffer for name, buffer in model.named_buffers() if name not in stored}
    if lost:
        with init_empty_weights(include_buffers=False):
            made = dict(type(model)(model.config).named_buffers())
        for name, buffer in lost.items():
            buffer.copy_(made[name])
