"""Errors that a user can cause, and errors by which an engine reports that it cannot continue.

Invariant: the text of a `PmpoError` is one line with the problem, its place, and the remedy. The command line
prints it unchanged and exits with code 2; other errors are never shown as a bare line.
"""


class PmpoError(Exception):
    """Base of every error that a user can cause and correct."""


class ConfigError(PmpoError):
    """The configuration, or an override of it, cannot be used."""


class DataError(PmpoError):
    """A data file, a row of it, or a task's examples cannot be used."""


class ModelError(PmpoError):
    """A model cannot be found, read, or used for the requested purpose."""


class ResourceError(PmpoError):
    """The machine or the cluster lacks the requested resources."""


class RunFolderError(PmpoError):
    """A run folder cannot be created, read or continued."""


class EngineError(PmpoError):
    """A replica's engine failed in a way that another replica would repeat."""


class PromptTooLongError(EngineError):
    """A prompt does not fit into the model's context."""


class EngineLostError(Exception):
    """A replica's engine died: the replica is useless and should end."""


class EndpointError(Exception):
    """The server behind a replica cannot be reached, or rejects every request at present."""
