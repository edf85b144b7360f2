"""The processor's word on bfloat16, by descriptions as Linux gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pmpo_ray.engines.hf.devices import choose_dtype, dtype_reason
from pmpo_ray.engines.hf.processor import bfloat16_extension

X86 = "processor\t: {n}\nmodel name\t: a processor\nflags\t\t: fpu sse avx {flags}\nbugs\t\t: spectre\n\n"
ARM = "processor\t: {n}\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd {flags}\nCPU part\t: 0xd40\n\n"


@pytest.mark.parametrize(
    ("form", "flags", "expected"),
    [
        (X86, ["avx512_bf16 avx512_vnni"] * 2, "avx512_bf16"),
        (X86, ["amx_bf16 amx_tile avx512_bf16"], "amx_bf16"),
        (X86, ["avx512bw avx512_vnni"] * 2, None),
        (X86, ["avx2", "avx2"], None),
        (ARM, ["i8mm bf16 sve"] * 2, "bf16"),
        (ARM, ["sve svebf16x"], None),
        (ARM, ["bf16", "crc32"], None),
        (X86, [], None),
    ],
    ids=["zen4", "sapphire rapids", "cascade lake", "desktop", "graviton3", "similar", "mixed", "no cores"],
)
def test_only_an_extension_of_every_core_counts(
    tmp_path: Path, form: str, flags: list[str], expected: str | None
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text("".join(form.format(n=n, flags=own) for n, own in enumerate(flags)))
    assert bfloat16_extension(file) == expected


def test_a_system_that_does_not_tell_has_none(tmp_path: Path) -> None:
    assert bfloat16_extension(tmp_path / "absent") is None
    (tmp_path / "garbage").write_bytes(bytes(range(256)))
    assert bfloat16_extension(tmp_path / "garbage") is None


def test_auto_is_bfloat16_exactly_where_the_processor_multiplies_it() -> None:
    extension = bfloat16_extension()
    expected = torch.float32 if extension is None else torch.bfloat16
    assert choose_dtype("auto", "cpu") == expected
    assert (extension or "does not multiply") in dtype_reason("auto", "cpu")


def test_a_configured_format_is_taken_as_it_is() -> None:
    assert choose_dtype("float16", "cpu") == torch.float16
    assert dtype_reason("float16", "cpu") == "configured"
