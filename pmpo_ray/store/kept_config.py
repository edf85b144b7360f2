"""The configuration that a run folder keeps."""

from __future__ import annotations

from collections.abc import Sequence

from pmpo_ray.config.loading import config_from_yaml, load_config
from pmpo_ray.config.run import RunConfig
from pmpo_ray.errors import ConfigError
from pmpo_ray.store.run_store import RunStore


def kept_config(location: str, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of the run in the folder `location`, changed by `overrides`, with `location` as its
    run_dir: the folder may have been moved since. Raises RunFolderError where there is no run, and
    ConfigError for a damaged configuration or a wrong override."""
    text = RunStore.open(location).config_yaml()
    config = config_from_yaml(text, f"config.yaml of {location}", overrides)
    return config.model_copy(update={"run_dir": location})


def requested_config(path: str | None, overrides: Sequence[str], run_dir: str | None) -> RunConfig:
    """The configuration that a command names: the file `path`, else the one that the run folder `run_dir`
    keeps. `run_dir`, where given, replaces the configuration's own. Errors as in `load_config` and
    `kept_config`; ConfigError where neither is given."""
    if path is not None:
        config = load_config(path, overrides)
        return config if run_dir is None else config.model_copy(update={"run_dir": run_dir})
    if run_dir is None:
        raise ConfigError("no configuration: name a YAML file, or an existing run folder with --run-dir")
    return kept_config(run_dir, overrides)
