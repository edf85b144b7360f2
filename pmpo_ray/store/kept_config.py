"""The configuration that a run folder keeps.

Invariant: a kept configuration names the folder it was read from as its run_dir, because the folder may have
been moved since the run began.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from pmpo_ray.config.loading import config_for_reading, config_from_yaml, load_config
from pmpo_ray.config.overrides import Override, run_dir_override
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.store.run_store import RunStore

_log = logging.getLogger(__name__)


def kept_config(location: str, overrides: Sequence[Override] = ()) -> RunConfig:
    """The configuration of the run in the folder `location`, changed by `overrides`. Raises RunFolderError if
    there is no run, and ConfigError for a damaged configuration or a wrong override."""
    store = RunStore.open(location)
    config = config_from_yaml(store.config_yaml(), _name(store), overrides)
    return config.model_copy(update={"run_dir": location})


def config_in(store: RunStore) -> RunConfig:
    """The configuration of the run in a folder, for what only reads it. Keys and passwords, which a folder of
    an earlier version may hold, are masked and named in a warning. Raises ConfigError for a damaged
    configuration."""
    config, hidden = config_for_reading(store.config_yaml(), _name(store))
    if hidden:
        _log.warning(
            "%s holds a key or a password: %s; it is not shown here; remove it from the file, and change it",
            _name(store),
            ", ".join(hidden),
        )
    return config.model_copy(update={"run_dir": store.location})


def _name(store: RunStore) -> str:
    return f"config.yaml of {store.location}"


def requested_config(path: str | None, overrides: Sequence[Override], run_dir: str | None) -> RunConfig:
    """The configuration of a command: the file `path` with `run_dir` in place of its own, or, without a file,
    the configuration kept in the run folder `run_dir`. Raises ConfigError if neither is given, and the errors
    of `load_config` and `kept_config`."""
    if path is not None:
        return load_config(path, [*overrides, *run_dir_override(run_dir)])
    if run_dir is None:
        raise ConfigError("no configuration: name a YAML file, or an existing run folder with --run-dir")
    return kept_config(run_dir, overrides)
