"""Output and errors of transformers, the hub client and tokenizers while a model is loaded.

Importing this module does not import transformers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers and the hub client inside the block, warnings and bars; restore their settings."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as transformers_logging

    logging: Any = transformers_logging  # its functions carry no types

    verbosity, bars, hub_bars_off = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        are_progress_bars_disabled(),
    )
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        # After the line above, which turns the hub's bars on as well.
        if hub_bars_off:
            disable_progress_bars()
        else:
            enable_progress_bars()


@contextlib.contextmanager
def named_tokenizer_errors() -> Iterator[None]:
    """Turn the plain Exception with which the tokenizers library refuses a vocabulary into a ValueError."""
    try:
        yield
    except Exception as error:
        if type(error) is Exception:
            raise ValueError(str(error)) from error
        raise
