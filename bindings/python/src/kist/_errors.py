"""The exceptions: one class for each failure of the library, made from its own
table (`ERRORS`, the KIST_ERRORS of <kist/kist.h>)."""
import errno

from . import _core

__all__ = ["Error", "SystemCallError", "ConflictError"]


class Error(Exception):
    """What kist raises. str() of it is a sentence: what happened, what to do.

    code    the library's number, -10001 and below, or a negated errno
    name    the code's name, "KIST_EBUSY"
    bank    the bank's name, or ""
    file    the file's name within the bank or store, or ""
    offset  byte within the file, or None
    """

    code = 0
    name = ""
    bank = ""
    file = ""
    offset = None


class SystemCallError(Error, OSError):
    """The system said no. `errno` is its number; it is also an instance of
    FileNotFoundError, PermissionError, ... where Python has such a class."""


class ConflictError(Error):
    """A batch expected something of a key that is not so any more; nothing was changed."""


# What else an exception is, beside an Error: (name, parents, errno for an OSError).
# A code that is not here gets a class named after it, with no other parent.
_CLASSES = {
    "KIST_EINVAL": ("InvalidArgumentError", (ValueError,), 0),
    "KIST_ENOMEM": ("OutOfMemoryError", (MemoryError,), 0),
    "KIST_ECORRUPT": ("CorruptError", (), 0),
    "KIST_EFORMAT": ("FormatError", (), 0),
    "KIST_ENEWER": ("NewerVersionError", (), 0),
    "KIST_ENOSTORE": ("NoStoreError", (FileNotFoundError,), errno.ENOENT),
    "KIST_ENOBANK": ("NoBankError", (LookupError,), 0),
    "KIST_EBANKEXISTS": ("BankExistsError", (FileExistsError,), errno.EEXIST),
    "KIST_EBUSY": ("BusyError", (TimeoutError,), errno.ETIMEDOUT),
    "KIST_EGONE": ("GoneError", (), 0),
    "KIST_EFORK": ("ForkError", (), 0),
    "KIST_ECLOSED": ("ClosedError", (ValueError,), 0),
    "KIST_EREADONLY": ("ReadOnlyError", (), 0),
    "KIST_EPOISON": ("PoisonedError", (OSError,), errno.EIO),
    "KIST_EFOREIGN": ("ForeignFilesError", (), 0),
    "KIST_EKEYLEN": ("KeyLengthError", (ValueError,), 0),
    "KIST_EVALUELEN": ("ValueLengthError", (ValueError,), 0),
    "KIST_EBANKNAME": ("BankNameError", (ValueError,), 0),
    "KIST_EPATH": ("UnsafePathError", (), 0),
    "KIST_ENETFS": ("NetworkFileSystemError", (), 0),
    "KIST_EFULL": ("DiskFullError", (OSError,), errno.ENOSPC),
    "KIST_EQUOTA": ("QuotaError", (OSError,), errno.EDQUOT),
    "KIST_EFILESIZE": ("FileSizeError", (OSError,), errno.EFBIG),
    "KIST_ESECTION": ("SectionError", (), 0),
    "KIST_ESPACE": ("BufferSpaceError", (ValueError,), 0),
    "KIST_EWINDOW": ("TooManySegmentsError", (), 0),
    "KIST_EBOUNDS": ("BoundsError", (IndexError,), 0),
    "KIST_EDEVICE": ("DeviceError", (), 0),
    "KIST_EPENDING": ("PendingError", (), 0),
    "KIST_EINUSE": ("InUseError", (), 0),
    "KIST_ELOST": ("LostError", (), 0),
}

_by_code = {}
_system = {}


def _add(code_name, code, text):
    fallback = code_name[len("KIST_"):].capitalize() + "Error", (), 0
    name, parents, number = _CLASSES.get(code_name, fallback)
    says = f"{text[0].upper()}{text[1:]}. ({code_name})"
    made = type(name, (Error, *parents),
                {"__doc__": says, "__module__": "kist", "code": code, "name": code_name})
    _by_code[code] = made, number
    globals()[name] = made
    __all__.append(name)


for _row in _core.ERRORS:
    _add(*_row)


def _system_class(number):
    """SystemCallError, and what OSError makes of this errno."""
    if number not in _system:
        kin = type(OSError(number, ""))
        _system[number] = (SystemCallError if kin is OSError else
                           type("SystemCallError", (SystemCallError, kin),
                                {"__module__": "kist", "__doc__": SystemCallError.__doc__}))
    return _system[number]


def make(code, name, what, bank, file, offset):
    """The exception for a code. Called by the extension."""
    if code in _by_code:
        kind, number = _by_code[code]
    else:
        number = -code
        kind = _system_class(number)
    error = kind(number, what) if number else kind(what)
    error.code, error.bank, error.file, error.offset = code, bank, file, offset
    error.name = name if code in _by_code else errno.errorcode.get(number, name)
    return error


Error.__module__ = SystemCallError.__module__ = ConflictError.__module__ = "kist"
_core._set_raise(make)
