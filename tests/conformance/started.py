"""Service units that are run by the real systemd, and what their program should get.

The program is this file: it writes down its arguments and its environment.
"""

import json
import os
import sys
from pathlib import Path

# The lines of each unit; PROBE is the program with what it needs.
STARTED: dict[str, str] = {
    "variables": "Environment=A=a \"B=b  'c d' e\" C= 'D=$A ${A}' E=\\\"x\\n"
    "\nExecStart=PROBE $A ${A} $B ${B} x${B}y $C ${C} $D ${D} $NO ${NO} $$A $${A} $ a$A $A$B ${A}${B}"
    ' ${A $1 ${1} $A- "$A" \'${B}\' "x $A" ${} $} $$ $$$A $E ${E} {A} $-\n',
    "verbatim": "Environment=A=a\nExecStart=:PROBE $A ${A} $$A $$\n",
    "name": "Environment=A=a\nExecStart=@PYTHON a$$b${A} THIS OUT x\n",
    "words": 'ExecStart=PROBE \'a b\' "c d"e f"g"\'h\' \\x41\\s\\102 a\\qb\\tc "" \'\' \\; ";" %% %n\n',
    "merged": "Environment=A=1 B=2\nEnvironmentFile=FILES/one\nEnvironmentFile=-FILES/none\n"
    "EnvironmentFile=FILES/t*\nPassEnvironment=LANG NOSUCH\nUnsetEnvironment=U X=1 Y=1\n"
    "Environment=C=%n D=$A\nExecStart=PROBE $A ${Q}\n",
    "none": "EnvironmentFile=FILES/none\nExecStart=PROBE\n",
    "bad-file": "EnvironmentFile=FILES/latin1\nExecStart=PROBE\n",
    "bad-file-optional": "EnvironmentFile=-FILES/latin1\nEnvironment=A=1\nExecStart=PROBE\n",
    "nul-file": "EnvironmentFile=FILES/nul\nExecStart=PROBE\n",
    "cut-off": "EnvironmentFile=FILES/quotes\nExecStart=PROBE\n",
    "umask": "UMask=027\nExecStart=PROBE\n",
    "limits": "LimitNOFILE=100:200\nLimitCORE=0\nLimitCPU=90s\nExecStart=PROBE\n",
    "directory": "WorkingDirectory=FILES/\nWorkingDirectory=-/nowhere\nExecStart=PROBE\n",
    "home": "WorkingDirectory=~\nExecStart=PROBE\n",
}

# Files of variables, by name, with every corner of their grammar; a middle dot is a blank.
_ONE = r"""# comment \
A=one
; B=no
  C  =  blanks around
export D=1
E="double \" \\ \$ \` \n $A" tail  # no comment
F='single \" \\ "x"'
G=a'b'c
H='a'"b"c d
I=back\slash\ \
  joined \··
J="first
second \
third"
K='first
second'
L=
M
N=a=b
1O=bad
P Q=bad
=bad
Q=  x y	z	·
R="x" "y" z"w"·
S=x \"y\"
T = "a"·
X=1
Y=2
U=gone
V=a\
W=not a variable
Z=café
LAST=no newline\\"""
FILES: dict[str, bytes] = {
    "one": _ONE.replace("·", " ").encode(),
    "two": b"A=two\r\nTWO=crlf\r\nTHREE=cr\rFOUR='lf'\n\n\n#\nFIVE=\"cut off\n",
    "tee": b"A=tee\nSIX='cut off",
    "latin1": b"A=\xe9\n",
    "nul": b"A=1\0\n",
    "quotes": b'A="\\\nB="c',
}


def text(case: str, files: Path, out: Path) -> str:
    """Return the text of a unit whose program writes to a file in `out`."""
    body = STARTED[case].replace("PROBE", "PYTHON THIS OUT")
    python = os.path.realpath(sys.executable)  # finds its library whatever its name is
    for word, meaning in (
        ("PYTHON", python), ("THIS", __file__), ("OUT", f"{out}/{case}"), ("FILES", str(files))
    ):  # fmt: skip
        body = body.replace(word, meaning)
    return f"[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\n{body}"


def main() -> None:
    """Write down what came."""
    import resource

    line = Path("/proc/self/cmdline").read_bytes().split(b"\0")[:-1]
    names = ("NOFILE", "CORE", "CPU")
    found = {
        "arguments": [word.decode() for word in line],
        "environ": dict(os.environ),
        "directory": os.getcwd(),
        "umask": os.umask(0o22),
        "limits": {
            f"Limit{name}": resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
            for name in names
        },
    }
    Path(sys.argv[1]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
