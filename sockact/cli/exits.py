"""Exit statuses: the whole table, and which error has which (sockact(1), "EXIT STATUS")."""

from sockact import errors

OK = 0
FAILURE = 1
USAGE = 2
NO_INPUT = 66
UNAVAILABLE = 69
SOFTWARE = 70
TEMPORARY = 75
NO_PERMISSION = 77
CONFIG = 78
NOT_EXECUTABLE = 126
NOT_FOUND = 127
INTERRUPTED = 130

MEANINGS = {
    OK: "success; after exec, or run without sockets, the status is the program's own",
    FAILURE: "a listener could not be opened, a replacement came to nothing, or another failure at"
    " run time",
    USAGE: "the command line is wrong",
    NO_INPUT: "there is no such unit, or it is masked or unreadable; or no such set, or service",
    UNAVAILABLE: "nobody answers at the rendezvous",
    SOFTWARE: "an error in sockact itself; SOCKACT_DEBUG=1 shows where",
    TEMPORARY: "the owner of the rendezvous was busy, or had no room, until the timeout",
    NO_PERMISSION: "no permission at the rendezvous, by its path or owner, or that is not trusted",
    CONFIG: "a unit is refused",
    NOT_EXECUTABLE: "the program exists but cannot be executed",
    NOT_FOUND: "there is no such program",
    INTERRUPTED: "interrupted by SIGINT before the program was started",
}


def status_of(error: errors.SockactError) -> int:
    """Return the exit status for an error."""
    match error:
        case errors.ListenTextError() | errors.SubstitutionError() | errors.CredentialsError():
            return USAGE
        case errors.UnitNotFoundError():
            return NO_INPUT
        case errors.UnitError():
            return CONFIG
        case errors.WorkingDirectoryError():
            return FAILURE
        case errors.LaunchError(errno=2):
            return NOT_FOUND
        case errors.LaunchError(errno=1):
            return FAILURE
        case errors.LaunchError():
            return NOT_EXECUTABLE
        case errors.OwnerNotFoundError():
            return UNAVAILABLE
        case errors.UntrustedOwnerError() | errors.RendezvousError(errno=13):
            return NO_PERMISSION
        case errors.RefusedError():
            return _REFUSALS.get(error.reason, FAILURE)
    return FAILURE


_REFUSALS = {
    "unknown-name": NO_INPUT,
    "busy": TEMPORARY,
    "limit": TEMPORARY,
    "denied": NO_PERMISSION,
}
