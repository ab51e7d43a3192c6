"""Service units, what systemd shows of them, and the same from what sockact reads.

``CASES`` are the lines of units, [Service] unless they say otherwise. ``STARTED`` are run by the
real systemd: the program writes down what it got.
"""

import re
from collections.abc import Callable, Iterator

from sockact import service_directives as d
from sockact.spec import Directive, ServiceSpec
from sockact.unitfile.command import Command
from sockact.unitfile.service_values import write_status
from sockact.unitfile.values import span

_TRUE = "ExecStart=/bin/true\n"

CASES: dict[str, str] = {
    "plain": _TRUE,
    "no-program": "Type=simple\n",
    "nothing": "Description=x\n",
    "stop-only": "ExecStop=/bin/true\n",
    "stop-remain": "ExecStop=/bin/true\nRemainAfterExit=yes\n",
    "oneshot-stop-only": "Type=oneshot\nExecStop=/bin/true\n",
    "two-programs": _TRUE * 2,
    "two-programs-oneshot": "Type=oneshot\n" + _TRUE * 2,
    "reset-programs": _TRUE * 2 + "ExecStart=\nExecStart=/bin/false\n",
    "all-reset": _TRUE + "ExecStart=\n",
    "oneshot-always": "Type=oneshot\nRestart=always\n" + _TRUE,
    "oneshot-on-success": "Type=oneshot\nRestart=on-success\n" + _TRUE,
    "oneshot-on-failure": "Type=oneshot\nRestart=on-failure\n" + _TRUE,
    "oneshot-timeout": "Type=oneshot\nTimeoutStartSec=5\n" + _TRUE,
    "oneshot-timeout-both": "TimeoutSec=5min\nType=oneshot\n" + _TRUE,
    "oneshot-runtime": "Type=oneshot\nRuntimeMaxSec=5\n" + _TRUE,
    "types": "Type=exec\nType=nonsense\nType=\n" + _TRUE,
    "notify": "Type=notify\n" + _TRUE,
    "notify-none": "NotifyAccess=none\nType=notify\n" + _TRUE,
    "notify-all": "NotifyAccess=all\nNotifyAccess=some\n" + _TRUE,
    "watchdog": "WatchdogSec=1min 30s\nWatchdogSignal=SIGQUIT\n" + _TRUE,
    "fdstore": "FileDescriptorStoreMax=7\nFileDescriptorStoreMax=x\n" + _TRUE,
    "restart": "Restart=on-watchdog\nRestart=sometimes\nRestartSec=1.5\nRestartSec=\n" + _TRUE,
    "timeouts": "TimeoutStartSec=0\nTimeoutStopSec=infinity\nTimeoutAbortSec=7\n" + _TRUE,
    "timeouts-bad": "TimeoutSec=3\nTimeoutSec=x\nTimeoutStopSec=-1\n" + _TRUE,
    "abort-reset": "TimeoutAbortSec=7\nTimeoutAbortSec=\nTimeoutStopSec=3\n" + _TRUE,
    "abort-zero": "TimeoutAbortSec=0\n" + _TRUE,
    "runtime": "RuntimeMaxSec=1h\n" + _TRUE,
    "statuses": "SuccessExitStatus=1 TEMPFAIL SIGUSR1 RTMIN+3 999 200\n" + _TRUE,
    "statuses-add": "SuccessExitStatus=1 2\nSuccessExitStatus=0x10 TERM\n" + _TRUE,
    "statuses-reset": "SuccessExitStatus=1\nSuccessExitStatus=\nSuccessExitStatus=6\n" + _TRUE,
    "statuses-restart": "RestartPreventExitStatus=CONFIG KILL\nRestartForceExitStatus=010 hup\n"
    + _TRUE,
    "signals": "KillSignal=INT\nFinalKillSignal=SIGABRT\nRestartKillSignal=RTMAX-2\n" + _TRUE,
    "signals-bad": "KillSignal=SIGFOO\nKillSignal=0\nKillSignal=65\nKillSignal=\n" + _TRUE,
    "signals-numbers": "KillSignal=12\nFinalKillSignal=64\nWatchdogSignal=0x3\n" + _TRUE,
    "signals-names": "KillSignal=SIGRTMIN\nFinalKillSignal=SIGPOLL\nWatchdogSignal=IOT\n" + _TRUE,
    "signals-rt": "KillSignal=RTMIN+31\nFinalKillSignal=RTMAX-31\nWatchdogSignal=RTMIN-1\n" + _TRUE,
    "restart-signal": "KillSignal=USR1\n" + _TRUE,
    "kill": "KillMode=mixed\nSendSIGHUP=yes\nSendSIGKILL=no\nIgnoreSIGPIPE=no\n" + _TRUE,
    "kill-process": "KillMode=process\nKillMode=all\n" + _TRUE,
    "commands": "Type=oneshot\n"
    "ExecStart=-@:/bin/sh foo x ; +/bin/b \\; c\nExecStart=!!/bin/x\nExecStart=!/bin/y\n"
    "ExecStart=/bin//z/./k  ''  \"\"\nExecStart=:@-/bin/a b\nExecStart=true\n",
    "commands-semicolons": "Type=oneshot\n"
    "ExecStart=/bin/a ;; /bin/b ; ; /bin/c\\;  \\; \";\" ';' x;y ;\nExecStart=; /bin/d\n",
    "commands-escapes": 'ExecStart=/bin/echo a\\qb\\tc d\\q"x" \\x41\\102\\u00e9\\s\\\\ "\\"" \'\\\'\'\n',
    "commands-specifiers": "ExecStart=/bin/%p %n%%%i '%N x' %\nExecStartPre=/bin/%j\n",
    "commands-bad-specifier": "ExecStart=/bin/a %z\n",
    "commands-bad-specifier-ignored": "ExecStart=/bin/a\nExecStartPre=-/bin/a %z\n",
    "commands-quotes": 'ExecStart=/bin/a "b"c\'d\' e"f g"h\n',
    "commands-quote-open": 'ExecStart=/bin/a "b\n',
    "commands-quote-open-ignored": _TRUE + 'ExecStartPre=-/bin/a "b\n',
    "commands-quote-open-first": _TRUE + 'ExecStartPre="/bin/a\n',
    "commands-quoted-program": 'ExecStart="/bin/a b" c\nExecStartPre="-/bin/c d"\n',
    "commands-program-quote": _TRUE + "ExecStartPre=\"/bin/a'b\"\n",
    "commands-program-backslash": _TRUE + "ExecStartPre=/bin/a\\\\b\n",
    "commands-relative": _TRUE + "ExecStartPre=bin/a\n",
    "commands-relative-ignored": _TRUE + "ExecStartPre=-bin/a\n",
    "commands-name": _TRUE + "ExecStartPre=..\n",
    "commands-directory": _TRUE + "ExecStartPre=/bin/\n",
    "commands-empty-program": _TRUE + 'ExecStartPre=""\n',
    "commands-prefix-only": _TRUE + "ExecStartPre=@\n",
    "commands-no-name": _TRUE + "ExecStartPre=@/bin/a\n",
    "commands-empty-name": _TRUE + 'ExecStartPre=@/bin/a ""\n',
    "commands-prefix-twice": _TRUE + "ExecStartPre=--/bin/a\n",
    "commands-prefix-both": _TRUE + "ExecStartPre=+!/bin/a\n",
    "commands-dotdot": _TRUE + "ExecStartPre=/bin/../bin/a\n",
    "commands-long-name": _TRUE + f"ExecStartPre={'x' * 256}\n",
    "commands-partial": "Type=oneshot\n" + _TRUE + "ExecStart=/bin/a ; -/bin/\n",
    "commands-all": _TRUE + "".join(
        f"{name}=/bin/{name} $A ${{B}}\n{name}=-/bin/two\n"
        for name in ("ExecCondition", "ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop",
                     "ExecStopPost")
    ),
    "environment": 'Environment="A=b c" D=%n E\nEnvironment=A=z F="q \\"r\\"" \'G=h\\ti\'\n' + _TRUE,
    "environment-bad": 'Environment=1A=b A-B=c =d B=%z C=%% D\\x3d1 \xe9=x\nEnvironment=H=1 "I=2\n'
    + _TRUE,
    "environment-reset": "Environment=A=1\nEnvironment=\nEnvironment=B=2 B=3 C= D\n" + _TRUE,
    "environment-escape": "Environment=A=1 B=\\q C=3\n" + _TRUE,
    "environment-files": "EnvironmentFile=-/etc//x/\nEnvironmentFile=/y z\nEnvironmentFile=%t/e*\n"
    "EnvironmentFile=rel\nEnvironmentFile=-\nEnvironmentFile=/a/../b\nEnvironmentFile=/%z\n" + _TRUE,
    "environment-files-reset": "EnvironmentFile=/a\nEnvironmentFile=\n" + _TRUE,
    "environment-pass": 'PassEnvironment=A B 1 A\nPassEnvironment=%p "C D"\n' + _TRUE,
    "environment-unset": 'UnsetEnvironment=X "Y=1 2" 3x A\\x42=\n' + _TRUE,
    "user": 'User=nobody\nGroup=0\nSupplementaryGroups=adm 4 "%p"\nSupplementaryGroups=tty\n' + _TRUE,
    "user-reset": "User=root\nUser=\nSupplementaryGroups=adm\nSupplementaryGroups=\n" + _TRUE,
    "user-bad": "User=a:b\n" + _TRUE,
    "user-specifier": "User=%p\nGroup=%P\n" + _TRUE,
    "group-bad": "Group=a/b\n" + _TRUE,
    "group-nobody": "Group=nobody\nSupplementaryGroups=nobody\n" + _TRUE,
    "user-bad-specifier": "User=%z\n" + _TRUE,
    "groups-bad-specifier": "SupplementaryGroups=adm %z\n" + _TRUE,
    "groups-bad": "SupplementaryGroups=adm a/b\n" + _TRUE,
    "directory": "WorkingDirectory=/var//lib/./x/\n" + _TRUE,
    "directory-home": "WorkingDirectory=-~\n" + _TRUE,
    "directory-optional": "WorkingDirectory=-/nowhere/%p\n" + _TRUE,
    "directory-reset": "WorkingDirectory=/a\nWorkingDirectory=\n" + _TRUE,
    "directory-bad": "WorkingDirectory=a\n" + _TRUE,
    "directory-bad-optional": "WorkingDirectory=/a\nWorkingDirectory=-b\n" + _TRUE,
    "directory-bad-specifier": "WorkingDirectory=/%z\n" + _TRUE,
    "umask": "UMask=027\nUMask=8\nUMask=rwx\n" + _TRUE,
    "umask-wide": "UMask=07777\nUMask=\n" + _TRUE,
    "nice": "Nice=-5\nOOMScoreAdjust=-1000\nNice=20\nOOMScoreAdjust=1001\n" + _TRUE,
    "nice-reset": "Nice=5\nOOMScoreAdjust=7\nNice=\nOOMScoreAdjust=\n" + _TRUE,
    "limits": "LimitNOFILE=1024:4096\nLimitCPU=1500ms\nLimitCORE=infinity\nLimitNICE=-5\n"
    "LimitRTTIME=5\nLimitAS=1G\nLimitDATA=1K:infinity\nLimitFSIZE=0\nLimitSTACK=8M:1G\n" + _TRUE,
    "limits-bad": "LimitAS=1K:\nLimitDATA=:1\nLimitNOFILE=2:1\nLimitNPROC=-1\nLimitCPU=x\n"
    "LimitRSS=infinity:5\nLimitMEMLOCK=1KB\nLimitNICE=41\nLimitNOFILE=1:2:3\nLimitLOCKS=1K\n" + _TRUE,
    "limits-more": "LimitNICE=+5\nLimitRTPRIO=5\nLimitRTTIME=1s\nLimitMSGQUEUE=1.5K\n"
    "LimitSIGPENDING=0x10\nLimitLOCKS=010\nLimitCPU=infinity\nLimitNPROC=7: 8\n" + _TRUE,
    "limits-reset": "LimitNOFILE=5\nLimitNOFILE=\nLimitNICE=infinity\nLimitRTTIME=1 2\n" + _TRUE,
    "stdio": "StandardInput=fd:foo\nStandardOutput=file:/x\nStandardError=append:/y\n" + _TRUE,
    "stdio-fd": "StandardInput=fd\nStandardOutput=fd:\nStandardError=fd:%p\n" + _TRUE,
    "stdio-socket": "StandardInput=socket\n" + _TRUE,
    "stdio-bad": "StandardInput=inherit\nStandardOutput=nonsense:/x\nStandardError=fd:a:b\n" + _TRUE,
    "stdio-bad-file": "StandardInput=file:x\n" + _TRUE,
    "stdio-bad-append": "StandardOutput=append:\n" + _TRUE,
    "stdio-null": "StandardOutput=null\nStandardError=inherit\n" + _TRUE,
    "stdio-truncate": "StandardOutput=truncate:/%p//x\nStandardError=\n" + _TRUE,
    "nonblocking": "NonBlocking=yes\n" + _TRUE,
    "limit-start": "[Unit]\nStartLimitIntervalSec=1min\nStartLimitBurst=3\n[Service]\n" + _TRUE,
    "limit-start-old": "StartLimitInterval=1min\nStartLimitBurst=3\n" + _TRUE,
    "limit-start-older": "[Unit]\nStartLimitInterval=0\n[Service]\nStartLimitIntervalSec=7\n" + _TRUE,
    "description": "[Unit]\nDescription=A %n  of %%\nConflicts=b.service c.target\n"
    'Conflicts=\nConflicts="d.service" e f.nonsense\n[Service]\n' + _TRUE,
    "remain": "RemainAfterExit=1\nRemainAfterExit=maybe\n" + _TRUE,
    "sockets": "Sockets=sockets-one.socket x.service\nSockets=\nSockets=%p-two.socket\n" + _TRUE,
    "unknown": "Nonsense=1\nexecstart=/bin/true\n[Socket]\nListenStream=1\n[X-Ours]\nA\n[Service]\n" + _TRUE,
    "ours": "X-Foo=1\nX-Ready=none\nX-Instances=2\n" + _TRUE,
    "crlf": "Type=oneshot\r\nExecStart=/bin/echo a\\\r\n b\r\n",
    "continued": "ExecStart=/bin/echo a \\\n# no\n  b \\\n; no\n  c\n",
}  # fmt: skip


def text(case: str) -> str:
    """Return the text of a unit."""
    body = CASES[case]
    return body if body.startswith("[") else f"[Service]\n{body}"


# --- what systemd shows ---------------------------------------------------------------------------

_FLAGS = (("ignore-failure", "-"), ("privileged", "+"), ("no-setuid", "!"), ("no-env-expand", ":"))
_EXEC = re.compile(r"{ path=(.*?) ; argv\[\]=(.*?) ; flags=(.*?) ; start_time=")


def _commands(commands: tuple[Command, ...]) -> str:
    """Write commands as they stand in the ``*Ex`` properties, without what has happened to them."""
    found = []
    for command in commands:
        marks = ("-" if command.ignore_failure else "", command.privileges,
                 "" if command.expand else ":")  # fmt: skip
        flags = "".join(mark for _, mark in _FLAGS if mark in marks)
        found.append(f"{command.path} | {' '.join(command.argv)} | {flags}")
    return "\n".join(found)


def _shown_commands(line: str) -> str:
    match = _EXEC.match(line)
    assert match, line
    marks = "".join(mark for flag, mark in _FLAGS if flag in match[3].split())
    return f"{match[1]} | {match[2]} | {marks}"


def _statuses(statuses: frozenset[d.ExitStatus]) -> str:
    ordered = sorted(statuses)
    return " ".join(write_status(one).removeprefix("SIG") for one in ordered)


def _streams(spec: ServiceSpec) -> Iterator[tuple[str, str]]:
    defaults = {"StandardInput": "null", "StandardOutput": "journal", "StandardError": "inherit"}
    for row in (d.STANDARD_INPUT, d.STANDARD_OUTPUT, d.STANDARD_ERROR):
        stream = spec.get(row)
        yield row.name, defaults[row.name] if stream.kind == "parent" else stream.kind
        target = stream.target if stream.kind == "fd" else ""
        usual = row.name.removeprefix("Standard").lower()
        if stream.kind == "fd" and not target:
            target = {"input": "stdin", "output": "stdout", "error": "stderr"}[usual]
        yield f"{row.name}FileDescriptorName", target


def _directory(spec: ServiceSpec) -> str:
    where = spec.get(d.WORKING_DIRECTORY)
    return f"{'!' if where.optional else ''}{where.path}" if where else ""


def _quoted(item: str) -> str:
    """Write a word as systemctl does in lists."""
    if not re.search(r"[\s\"\\'`$()]", item):
        return item
    escaped = item.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t")
    return f'"{escaped}"'


_TIMES = {
    "RestartUSec": d.RESTART_SEC, "TimeoutStartUSec": d.TIMEOUT_START,
    "TimeoutStopUSec": d.TIMEOUT_STOP, "TimeoutAbortUSec": d.TIMEOUT_ABORT,
    "RuntimeMaxUSec": d.RUNTIME_MAX, "StartLimitIntervalUSec": d.START_LIMIT_INTERVAL,
}  # fmt: skip
_PLAIN: tuple[Directive[object], ...] = tuple(
    d.TABLE[name]
    for name in (
        "Type", "Restart", "NotifyAccess", "RemainAfterExit", "FileDescriptorStoreMax", "NonBlocking",
        "User", "Group", "IgnoreSIGPIPE", "KillMode", "KillSignal", "RestartKillSignal",
        "FinalKillSignal", "SendSIGKILL", "SendSIGHUP", "WatchdogSignal", "StartLimitBurst",
    )
)  # fmt: skip
COMMANDS = ("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop",
            "ExecStopPost")  # fmt: skip
_STATUSES = ("SuccessExitStatus", "RestartPreventExitStatus", "RestartForceExitStatus")


def expected(spec: ServiceSpec) -> dict[str, str]:
    """Return the properties that systemd should show for `spec`."""
    found: dict[str, str] = {}
    for row in _PLAIN:
        value = spec.get(row)
        found[row.name] = ("yes" if value else "no") if isinstance(value, bool) else str(value)
    found |= {name: str(spec.get(row)) for name, row in _TIMES.items()}
    found |= {f"{name}Ex": _commands(spec.get(d.TABLE[name])) for name in COMMANDS}  # type: ignore[arg-type]
    found |= {name: _statuses(spec.get(d.TABLE[name])) for name in _STATUSES}  # type: ignore[arg-type]
    found["Environment"] = " ".join(_quoted("=".join(pair)) for pair in spec.get(d.ENVIRONMENT))
    found["EnvironmentFiles"] = "\n".join(
        f"{one.path} (ignore_errors={'yes' if one.optional else 'no'})"
        for one in spec.get(d.ENVIRONMENT_FILE)
    )
    for names in (d.PASS_ENVIRONMENT, d.UNSET_ENVIRONMENT, d.SUPPLEMENTARY_GROUPS):
        words: tuple[str, ...] = spec.get(names)
        found[names.name] = " ".join(map(_quoted, words))
    found["UMask"] = f"{spec.get(d.UMASK) & 0o7777:04o}"
    found["Nice"] = str(spec.get(d.NICE) or 0)
    found["OOMScoreAdjust"] = str(spec.get(d.OOM_SCORE_ADJUST) or 0)
    found["WorkingDirectory"] = _directory(spec)
    found["Description"] = spec.get(d.DESCRIPTION) or spec.name
    found["Conflicts"] = " ".join(sorted({*spec.get(d.CONFLICTS), "shutdown.target"}))
    for name, limit in d.LIMITS.items():
        if (pair := spec.get(limit)) is not None:
            soft, hard = ("infinity" if one < 0 else str(one) for one in pair)
            found |= {name: hard, f"{name}Soft": soft}
    return found | dict(_streams(spec))


_READERS: dict[str, Callable[[str], str]] = {
    **{name: lambda value: str(span(value)) for name in _TIMES},
    **{f"{name}Ex": _shown_commands for name in COMMANDS},
    "Conflicts": lambda value: " ".join(sorted(value.split())),
}


def shown(block: str) -> dict[str, str]:
    """Return what ``systemctl show`` printed of one unit, in the form of `expected`."""
    found: dict[str, str] = {}
    for line in block.splitlines():
        name, _, value = line.partition("=")
        value = _READERS[name](value) if name in _READERS and value else value
        found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


def differing(spec: ServiceSpec, block: str) -> dict[str, tuple[str, str]]:
    """Return the properties that differ: what systemd shows, and what `spec` says."""
    real = shown(block)
    wanted = expected(spec)
    return {
        name: (real.get(name, ""), value)
        for name, value in wanted.items()
        if real.get(name, "") != value
    }
