"""Errors that a person can mend: one line that says what is wrong and what to do."""


class FeedbackError(Exception):
    """Base of every error shown to people as one line, without a traceback."""


class NotFound(FeedbackError):
    """A project, run, model version, user or file that is not there."""


class Conflict(FeedbackError):
    """The request clashes with what is already stored (a name taken, a lease lost, a second submit)."""


class Invalid(FeedbackError):
    """The input is malformed: an unknown key, a value out of its range, a wrong format."""


class NotEnoughData(FeedbackError):
    """Training was refused because too little feedback has been collected; names the missing number."""


class NotAllowed(FeedbackError):
    """The user may not do that."""


class StoreUnavailable(FeedbackError):
    """The database or the artifact folder cannot be used: locked, full, missing, or of a newer schema."""


class ModelUnusable(FeedbackError):
    """A base model or adapter that cannot be loaded: no chat template, corrupt or missing files."""


class TrainingFailed(FeedbackError):
    """A run that ended for a reason worth saying in one line (NaN loss, out of memory, killed)."""
