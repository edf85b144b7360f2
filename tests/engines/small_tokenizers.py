"""Small tokenizers of the kinds in use, trained in a second, and chat templates of the shapes in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = ("<s>", "</s>", "<unk>", "<|start|>", "<|turn|>", "<|end|>", "<think>", "</think>")
"""The special tokens of every tokenizer here."""

CORPUS = (
    "Name the topic of each message: billing, shipping or returns. The parcel is late; sent on 12 May.",
    "Input: Who wrote the first letter?\nOutput: (A) Ada\n\nInput: I was charged twice.\nOutput: billing\n\n",
    "Question: is it true that 12 + 345 = 357? Think step by step.\n\n1. Add the ones.\n2. Add the tens.\n",
    "user\nassistant\nsystem\nYou are a careful reader.  Two  blanks, \ttabs and 'quotes'. Isn't it nice?",
    "Options:\n(A) Ada is taller than Bob.\n(B) Bob is the tallest.\n(C) Neither.\nThe answer is (B).",
    "naïve café, Größe, 你好, 答案是12。 Привет! 🙂 Émile's résumé... [INST] and <<SYS>> are plain text.",
)

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _bpe() -> Tokenizer:
    return Tokenizer(models.BPE(byte_fallback=True, unk_token=SPECIAL[2], fuse_unk=True))


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _split_byte_level() -> Tokenizer:
    """Full stops and line ends are one token, as in the Llama 3 and Qwen families."""
    tokenizer = _byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return tokenizer


def _blank_first() -> Tokenizer:
    """A blank in front of the first text only, and merges over any characters."""
    tokenizer = _bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def _blank_always() -> Tokenizer:
    """A blank in front of every text between special tokens, as in the legacy behaviour of Llama 2."""
    tokenizer = _bpe()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def _blank_never() -> Tokenizer:
    tokenizer = _bpe()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    return tokenizer


def _unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    return tokenizer


def _word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL[2]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    "byte_level": _byte_level,
    "split_byte_level": _split_byte_level,
    "blank_first": _blank_first,
    "blank_always": _blank_always,
    "blank_never": _blank_never,
    "unigram": _unigram,
    "word_piece": _word_piece,
}


def _trainer(tokenizer: Tokenizer) -> trainers.Trainer:
    common = {"vocab_size": 700, "special_tokens": [*SPECIAL], "show_progress": False}
    if isinstance(tokenizer.model, models.Unigram):
        return trainers.UnigramTrainer(unk_token=SPECIAL[2], **common)
    if isinstance(tokenizer.model, models.WordPiece):
        return trainers.WordPieceTrainer(**common)
    alphabet = pre_tokenizers.ByteLevel.alphabet() if tokenizer.decoder is not None else []
    return trainers.BpeTrainer(initial_alphabet=alphabet, max_token_length=12, **common)


@cache
def _trained(kind: str) -> str:
    tokenizer = KINDS[kind]()
    tokenizer.train_from_iterator(CORPUS * 3, _trainer(tokenizer))
    return str(tokenizer.to_str())


def small_tokenizer(
    kind: str, template: str | None = None, added: Sequence[AddedToken] = ()
) -> PreTrainedTokenizerBase:
    """A tokenizer of `kind` with a chat template. `added` replaces properties of special tokens, or adds
    tokens."""
    backend = Tokenizer.from_str(_trained(kind))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=SPECIAL[0], eos_token=SPECIAL[1], unk_token=SPECIAL[2]
    )
    for token in added:
        tokenizer.add_tokens([token], special_tokens=token.special)
    tokenizer.chat_template = template
    return tokenizer


TEMPLATES: Mapping[str, str] = {
    # ChatML's shape, with a default system text.
    "turns": (
        "{% if messages[0].role != 'system' %}<|start|>system\nBe kind.<|end|>\n{% endif %}"
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    ),
    # The system text moves into the last user turn; a blank in front of the answer.
    "system_last": (
        "{% set ns = namespace(system='') %}{% if messages[0].role == 'system' %}"
        "{% set ns.system = messages[0].content + '\n\n' %}{% set messages = messages[1:] %}{% endif %}<s>"
        "{% for m in messages %}{% if m.role == 'user' %}"
        "[INST] {{ ns.system if loop.last else '' }}{{ m.content }}[/INST]"
        "{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
    ),
    # Contents without outer white space; blanks around the answer; plain marks of turns.
    "trimmed": (
        "{% set system = '' %}{% if messages[0].role == 'system' %}"
        "{% set system = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' %}"
        "{% set messages = messages[1:] %}{% endif %}"
        "{% for m in messages %}{% if m.role == 'user' %}"
        "<s>[INST] {{ ((system if loop.first else '') + m.content) | trim }} [/INST]"
        "{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}"
    ),
    # A blank at the end of the generation prompt.
    "blank_prompt": (
        "<s>{% for m in messages %}{{ m.role | upper }}: {{ m.content }}"
        "{{ '</s>' if m.role == 'assistant' else ' ' }}"
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
    ),
    # No system turn; the model's turn has another name.
    "no_system": (
        "<s>{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "<|start|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|start|>model\n{% endif %}"
    ),
    # A thought that the generation prompt opens, and that earlier turns do not show.
    "open_thought": (
        "<s>{% for m in messages %}{% if m.role == 'assistant' %}"
        "<|turn|>{{ m.content.split('</think>')[-1] }}</s>"
        "{% elif m.role == 'user' %}<|start|>{{ m.content }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|turn|><think>\n{% endif %}"
    ),
    # An empty thought in the last turn only.
    "last_thought": (
        "{% for m in messages %}<|start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
        "<|end|>\n{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n"
        "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
    ),
    # A channel that the generation prompt leaves to the model.
    "channels": (
        "{% for m in messages %}<|start|>{{ m.role }}"
        "{% if m.role == 'assistant' %}<|turn|>final{% endif %}<|turn|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    ),
}
