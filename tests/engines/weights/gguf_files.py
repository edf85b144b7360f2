"""Write small real GGUF files."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

# How a byte-level vocabulary spells the 256 bytes: printable ones as themselves, others from U+0100 on.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = [*map(chr, PRINTABLE), *map(chr, range(256, 256 + 256 - len(PRINTABLE)))]


def write_gguf(
    path: Path,
    *,
    pre: str = "smollm",
    architecture: str = "llama",
    add_bos: bool = False,
    merges: tuple[str, ...] = ("a b",),
) -> Path:
    """A two-layer Llama with random weights, one token per byte, and one merge."""
    width, vocabulary = 32, ["<bos>", "<eos>", *BYTES, "ab"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(width)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary)
    writer.add_token_types([3, 3, *[1] * 257])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(add_bos)
    random = np.random.default_rng(0)
    square = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes: dict[str, tuple[int, ...]] = {
        f"blk.{n}.{part}.weight": (width, width) for n in range(2) for part in square
    }
    shapes |= {f"blk.{n}.{part}_norm.weight": (width,) for n in range(2) for part in ("attn", "ffn")}
    shapes |= {"token_embd.weight": (len(vocabulary), width), "output_norm.weight": (width,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
