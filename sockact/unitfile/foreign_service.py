"""The keys in a ``.service`` file that are systemd's business alone, and what to say of them."""

from sockact.directives import nearest
from sockact.service_directives import TABLE
from sockact.unitfile.foreign import (
    COMMAND_KEYS,
    INSTALL_KEYS,
    TEXT_KEYS,
    unit_keys,
    unknown_key,
)

_SERVICE_KEYS = frozenset(
    {
        "BusName",
        "BusPolicy",
        "ExecReloadPost",
        "ExitType",
        "FailureAction",
        "GuessMainPID",
        "OOMPolicy",
        "PIDFile",
        "PermissionsStartOnly",
        "RebootArgument",
        "RefreshOnReload",
        "RestartMode",
        "RestartRandomizedDelaySec",
        "RootDirectoryStartOnly",
        "RuntimeRandomizedExtraSec",
        "StartLimitAction",
        "SysVStartPriority",
        "TimeoutStartFailureMode",
        "TimeoutStopFailureMode",
        "USBFunctionDescriptors",
        "USBFunctionStrings",
    }
)
"""Keys of [Service] alone, without those that are honoured."""

_CGROUP = "there are no control groups here"
_CONFINE = "the service is not confined here"
_LOG = "its output goes where that of sockact goes, as it is"
_DIRECTORY = "no directory is made here; make it in ExecStartPre="
_CREDENTIAL = "there are no credentials here"
_TERMINAL = "the service gets no terminal here"
# Why, by how the key begins: the first that fits.
_REASONS = (
    (("PIDFile", "GuessMainPID"), "the main process is the one that was started"),
    (("Bus",), "there is no D-Bus here"),
    (("USBFunction",), "ListenUSBFunction= is not done here"),
    (("DynamicUser",), "no user is made here; name one in User="),
    (
        ("RuntimeDirectory", "StateDirectory", "CacheDirectory", "LogsDirectory",
         "ConfigurationDirectory", "TimeoutCleanSec"),
        _DIRECTORY,
    ),
    (("LoadCredential", "SetCredential", "ImportCredential"), _CREDENTIAL),
    (("StandardInputText", "StandardInputData"), "standard input is no data here"),
    (("TTY", "Utmp"), _TERMINAL),
    (("Syslog", "Log"), _LOG),
    (("ExecSearchPath",), "write the path of the program"),
    (("MemoryDenyWriteExecute",), _CONFINE),
    (("Slice", "Delegate", "OOMPolicy", "ManagedOOM", "Tasks", "Memory", "DefaultMemory",
      "DefaultStartup", "Startup", "CPUAccounting", "CPUPressure", "CPUQuota", "CPUShares",
      "CPUWeight", "Allowed", "Device", "Disable", "BlockIO", "IO", "IP"), _CGROUP),
    (
        ("Private", "Protect", "Restrict", "SystemCall", "ReadOnly", "ReadWrite", "Inaccessible",
         "NoExec", "ExecPaths", "Capability", "Ambient", "NoNewPrivileges", "LockPersonality",
         "Root", "Bind", "TemporaryFileSystem", "Mount", "Extension", "SecureBits", "ProcSubset",
         "AppArmor", "SELinux", "Smack", "Namespace", "NetworkNamespace", "UserNamespace",
         "KeyringMode", "RemoveIPC", "SocketBind", "NFTSet", "BPF", "PAMName"),
        _CONFINE,
    ),
)  # fmt: skip


def service_key(section: str, key: str) -> tuple[str, bool]:
    """Return what to say of a key of a service unit that is no row of its table, or nothing.

    Nothing is said only of what changes nothing: texts for people, [Install], and X- keys that
    are not near to one of ours.

    Returns:
        The message, and whether systemd knows the key.
    """
    if key.startswith("X-"):
        near = nearest(key, [name for name in TABLE if name.startswith("X-")])
        said = f"unknown key {key}= in [{section}]; did you mean {near}=?" if near else ""
        return said, False
    if section == "Service":
        known = COMMAND_KEYS | _SERVICE_KEYS
        why = next((why for starts, why in _REASONS if key.startswith(starts)), "")
        said = f"{key}= has no effect: {why}" if why else f"{key}= has no effect here"
    elif section == "Install":
        known, said = INSTALL_KEYS, ""
    else:
        known = unit_keys()
        said = f"{key}= has no effect: services are not tied to other units here"
        if key in TEXT_KEYS:
            said = ""
        elif key.startswith(("Condition", "Assert")):
            why = "conditions are not evaluated, the service is started anyway"
            said = f"{key}= has no effect: {why}"
    if key in known:
        return said, True
    rows = {row.name for row in TABLE.values() if row.section == section}
    return unknown_key(key, section, known | rows), False
