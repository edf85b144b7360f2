"""The section about trackers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from pmpo_ray.config.base import Section


class MlflowConfig(Section):
    """A run in MLflow. `uri` None: the address in MLFLOW_TRACKING_URI, else MLflow's default."""

    uri: str | None = None
    experiment: str = Field(default="pmpo", min_length=1)
    register_prompts: bool = True


class WandbConfig(Section):
    """A run in Weights & Biases. For a key that is None, wandb's variables and settings apply."""

    project: str = Field(default="pmpo", min_length=1)
    entity: str | None = None
    mode: Literal["online", "offline", "disabled"] | None = None


class TensorboardConfig(Section):
    """A run in TensorBoard. `log_dir` None: the folder `tensorboard` in the run folder."""

    log_dir: str | None = None


class TrackingConfig(Section):
    """The trackers that follow a run; none by default. `true` stands for a section with its defaults."""

    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None
    tensorboard: TensorboardConfig | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _on_or_off(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value
