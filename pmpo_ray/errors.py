"""Errors that a user can cause, and those by which an engine says that it can go on no longer.

Invariant: the text of a `PmpoError` is one line that says what is wrong, where, and what to do.
The command line prints it as it is and exits with code 2; nothing else is ever shown as a bare line.
"""


class PmpoError(Exception):
    """Base of every error that a user can cause and mend."""


class ConfigError(PmpoError):
    """The configuration, or an override of it, cannot be used."""


class DataError(PmpoError):
    """A data file, a row of it, or a task's examples cannot be used."""


class ModelError(PmpoError):
    """A model cannot be found, read, or used for what was asked."""


class ResourceError(PmpoError):
    """The machine or the cluster does not have what was asked for."""


class RunFolderError(PmpoError):
    """A run folder cannot be created, read or continued."""


class EngineError(PmpoError):
    """A replica's engine failed in a way that another replica would repeat."""


class EngineLostError(Exception):
    """A replica's engine died under it: the replica is of no more use and should end."""


class EndpointError(Exception):
    """The server behind a replica cannot be reached or serves nobody now, whatever it is asked."""
