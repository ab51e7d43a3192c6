"""The architecture as data: who may import whom, and which files are pure."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "sockact"

# Each module, or package as a whole, and what it may import from sockact. Nothing else is allowed,
# in functions neither; imports for type checkers alone do not count.
MAY_IMPORT = {
    "errors": [],
    "spec": [],
    "directives": ["spec"],
    "service_directives": ["spec", "directives"],
    "fd.own": ["errors"],
    "fd.account": ["errors"],
    "fd.place": [],
    "fd.mqueue": [],
    "fd.transfer": ["errors", "spec"],
    "fd.peer": ["spec"],
    "fd.pidfd": [],
    "fd.probe": ["spec", "fd.mqueue"],
    "fd.identity": ["fd.probe"],
    "fd.sockdiag": [],
    "fd.queue": ["spec", "fd.probe", "fd.sockdiag"],
    "fd.connections": ["fd.identity", "fd.probe", "fd.sockdiag"],
    "fd.nowait": ["fd.probe"],
    "unitfile": [],
    "unitfile.values": ["directives", "spec"],
    "unitfile.address": ["spec", "unitfile.values"],
    "unitfile.specifiers": [],
    "unitfile.grammar": ["errors", "spec", "unitfile.values"],
    "unitfile.foreign": ["directives"],
    "unitfile.command": ["spec", "unitfile.specifiers", "unitfile.values"],
    "unitfile.envfile": ["unitfile.values"],
    "unitfile.signals": ["unitfile.values"],
    "unitfile.builder": [
        "errors",
        "spec",
        "unitfile.command",
        "unitfile.grammar",
        "unitfile.specifiers",
        "unitfile.values",
    ],
    "unitfile.unit": [
        "errors",
        "spec",
        "directives",
        "unitfile.values",
        "unitfile.address",
        "unitfile.builder",
        "unitfile.command",
        "unitfile.specifiers",
        "unitfile.grammar",
        "unitfile.foreign",
    ],
    "unitfile.service_values": [
        "spec",
        "service_directives",
        "unitfile.readiness",
        "unitfile.signals",
        "unitfile.values",
    ],
    "unitfile.foreign_service": ["directives", "service_directives", "unitfile.foreign"],
    "unitfile.service": [
        "errors",
        "spec",
        "directives",
        "service_directives",
        "unitfile.builder",
        "unitfile.foreign_service",
        "unitfile.grammar",
        "unitfile.service_values",
        "unitfile.specifiers",
        "unitfile.values",
    ],
    "unitfile.check": [
        "errors",
        "spec",
        "directives",
        "unitfile.explain",
        "unitfile.unit",
        "unitfile.values",
    ],
    "unitfile.check_service": [
        "spec",
        "service_directives",
        "unitfile.check",
        "unitfile.service",
        "unitfile.service_values",
        "unitfile.values",
    ],
    "unitfile.readiness": ["spec", "unitfile.address", "unitfile.values"],
    "unitfile.explain": ["spec", "directives", "unitfile.values"],
    "unitfile.listen": [
        "errors",
        "spec",
        "directives",
        "unitfile.values",
        "unitfile.address",
        "unitfile.unit",
        "unitfile.explain",
    ],
    "unitfile.load": [
        "errors",
        "spec",
        "unitfile.builder",
        "unitfile.grammar",
        "unitfile.machine",
        "unitfile.service",
        "unitfile.unit",
    ],
    "unitfile.machine": ["unitfile.builder", "unitfile.specifiers"],
    "sockets": [],
    "sockets.socketset": ["errors", "spec", "fd.own", "fd.place", "fd.probe"],
    "sockets.node": ["fd.mqueue"],
    "sockets.holder": [],
    "sockets.advice": ["spec", "sockets.holder"],
    "sockets.resolve": ["errors", "spec"],
    "sockets.plan": ["spec", "directives"],
    "sockets.task": ["errors", "spec", "directives", "fd.account", "sockets.node"],
    "sockets.options": ["spec", "sockets.plan", "sockets.task"],
    "sockets.adapt": [
        "directives",
        "fd.probe",
        "sockets.node",
        "sockets.options",
        "sockets.plan",
        "sockets.task",
        "spec",
    ],
    "sockets.caller": ["spec"],
    "sockets.accept": [
        "spec",
        "fd.nowait",
        "fd.own",
        "fd.peer",
        "fd.pidfd",
        "fd.probe",
        "sockets.caller",
        "sockets.options",
        "sockets.plan",
        "sockets.task",
    ],
    "sockets.flush": ["fd.mqueue", "fd.nowait", "fd.probe", "sockets.accept"],
    "sockets.openfile": ["directives", "fd.own", "fd.mqueue", "sockets.task"],
    "sockets.bind": [
        "errors",
        "spec",
        "directives",
        "fd.own",
        "fd.probe",
        "sockets.socketset",
        "sockets.node",
        "sockets.task",
        "sockets.options",
        "sockets.plan",
        "sockets.openfile",
        "sockets.advice",
        "sockets.resolve",
    ],
    "fd": [],
    "activation": [],
    "activation.environ": ["errors", "spec"],
    "activation.substitute": ["errors"],
    "activation.receive": ["errors", "fd.pidfd", "sockets.socketset", "activation.environ"],
    "activation.notify": ["errors", "fd.transfer", "sockets.socketset"],
    "activation.message": ["spec", "unitfile.values"],
    "activation.hear": ["activation.message", "fd.own"],
    "supervise.store": ["fd.identity", "fd.own", "rendezvous.react"],
    "activation.libc": ["fd.place"],
    "activation.program": ["errors", "spec", "fd.account", "activation.libc"],
    "activation.execution": ["spec"],
    "activation.image": ["activation.libc", "activation.program", "activation.receive"],
    "activation.layout": ["fd.place", "activation.environ", "activation.execution"],
    "activation.birth": [
        "activation.environ",
        "activation.execution",
        "activation.image",
        "activation.layout",
        "activation.libc",
        "activation.program",
        "activation.receive",
    ],
    "activation.spawn": [
        "errors",
        "fd.own",
        "activation.birth",
        "activation.environ",
        "activation.execution",
        "activation.layout",
        "activation.libc",
        "activation.program",
    ],
    "activation.launch": [
        "errors",
        "fd.place",
        "sockets.socketset",
        "activation.environ",
        "activation.program",
        "activation.receive",
        "activation.substitute",
    ],
    "rendezvous": [],
    "rendezvous.manifest": ["spec"],
    "rendezvous.messages": ["spec", "rendezvous.manifest"],
    "rendezvous.wire": ["errors", "rendezvous.manifest", "rendezvous.messages"],
    "rendezvous.policy": ["spec"],
    "rendezvous.tables": [],
    "rendezvous.passage": ["rendezvous.manifest", "rendezvous.messages"],
    "rendezvous.estate": ["spec", "rendezvous.manifest", "rendezvous.policy"],
    "rendezvous.actions": [
        "spec",
        "rendezvous.manifest",
        "rendezvous.messages",
        "rendezvous.policy",
    ],
    "rendezvous.machine": [
        "errors",
        "rendezvous.actions",
        "rendezvous.messages",
        "rendezvous.passage",
        "rendezvous.tables",
    ],
    "rendezvous.owner": [
        "rendezvous.actions",
        "rendezvous.estate",
        "rendezvous.machine",
        "rendezvous.manifest",
        "rendezvous.messages",
        "rendezvous.passage",
        "rendezvous.policy",
        "rendezvous.tables",
    ],
    "rendezvous.client": [
        "rendezvous.actions",
        "rendezvous.machine",
        "rendezvous.manifest",
        "rendezvous.messages",
        "rendezvous.passage",
        "rendezvous.tables",
    ],
    "rendezvous.memory": ["spec", "rendezvous.policy"],
    "holder": [],
    "holder.fdstore": [
        "activation.notify",
        "activation.receive",
        "errors",
        "fd.own",
        "rendezvous.memory",
        "rendezvous.talk",
    ],
    "holder.tenure": [
        "errors",
        "fd.identity",
        "fd.own",
        "fd.peer",
        "holder.fdstore",
        "rendezvous.arrive",
        "rendezvous.inspect",
        "rendezvous.manifest",
        "rendezvous.meet",
        "rendezvous.memory",
        "rendezvous.policy",
        "rendezvous.react",
        "rendezvous.takeover",
        "rendezvous.talk",
        "unitfile.values",
    ],
    "holder.hold": [
        "activation.notify",
        "errors",
        "fd.own",
        "fd.peer",
        "fd.probe",
        "holder.fdstore",
        "holder.tenure",
        "rendezvous.arrive",
        "rendezvous.furnish",
        "rendezvous.inspect",
        "rendezvous.manifest",
        "rendezvous.meet",
        "rendezvous.memory",
        "rendezvous.messages",
        "rendezvous.policy",
        "rendezvous.react",
        "rendezvous.take",
        "rendezvous.takeover",
        "rendezvous.talk",
        "sockets.bind",
        "sockets.socketset",
        "sockets.task",
        "spec",
    ],
    "rendezvous.react": [],
    "rendezvous.talk": [
        "errors",
        "fd.own",
        "fd.peer",
        "fd.transfer",
        "rendezvous.actions",
        "rendezvous.client",
        "rendezvous.manifest",
        "rendezvous.messages",
        "rendezvous.owner",
        "rendezvous.react",
        "rendezvous.wire",
        "sockets.socketset",
    ],
    "rendezvous.meet": [
        "errors",
        "fd.own",
        "fd.peer",
        "rendezvous.policy",
        "sockets.node",
    ],
    "rendezvous.inspect": ["fd.identity", "fd.own", "fd.probe", "rendezvous.manifest"],
    "rendezvous.match": ["spec", "rendezvous.manifest"],
    "rendezvous.offer": [
        "fd.own",
        "fd.peer",
        "fd.queue",
        "rendezvous.actions",
        "rendezvous.estate",
        "rendezvous.manifest",
        "rendezvous.meet",
        "rendezvous.messages",
        "rendezvous.owner",
        "rendezvous.policy",
        "rendezvous.react",
        "rendezvous.tables",
        "rendezvous.talk",
    ],
    "rendezvous.take": [
        "errors",
        "fd.own",
        "rendezvous.actions",
        "rendezvous.client",
        "rendezvous.inspect",
        "rendezvous.manifest",
        "rendezvous.meet",
        "rendezvous.messages",
        "rendezvous.offer",
        "rendezvous.react",
        "rendezvous.talk",
        "sockets.socketset",
    ],
    "rendezvous.arrive": [
        "errors",
        "fd.own",
        "fd.probe",
        "rendezvous.manifest",
        "rendezvous.meet",
        "rendezvous.messages",
        "rendezvous.react",
        "rendezvous.take",
        "rendezvous.talk",
    ],
    "rendezvous.takeover": [
        "errors",
        "fd.identity",
        "fd.own",
        "fd.peer",
        "rendezvous.actions",
        "rendezvous.arrive",
        "rendezvous.estate",
        "rendezvous.manifest",
        "rendezvous.meet",
        "rendezvous.messages",
        "rendezvous.offer",
        "rendezvous.parcels",
        "rendezvous.policy",
        "rendezvous.react",
        "rendezvous.tables",
        "rendezvous.talk",
    ],
    "rendezvous.furnish": [
        "directives",
        "fd.own",
        "rendezvous.arrive",
        "rendezvous.inspect",
        "rendezvous.manifest",
        "rendezvous.match",
        "rendezvous.meet",
        "rendezvous.react",
        "rendezvous.take",
        "rendezvous.takeover",
        "rendezvous.talk",
        "sockets.bind",
        "sockets.node",
        "sockets.resolve",
        "sockets.socketset",
        "sockets.task",
        "spec",
    ],
    "rendezvous.parcels": [
        "errors",
        "fd.own",
        "rendezvous.manifest",
        "rendezvous.messages",
        "rendezvous.react",
        "rendezvous.take",
        "rendezvous.talk",
    ],
    "rendezvous.command": [
        "errors",
        "rendezvous.messages",
        "rendezvous.take",
        "rendezvous.wire",
    ],
    "rendezvous.change": [
        "directives",
        "fd.identity",
        "fd.own",
        "rendezvous.furnish",
        "rendezvous.inspect",
        "rendezvous.manifest",
        "rendezvous.match",
        "rendezvous.takeover",
        "rendezvous.talk",
        "sockets.adapt",
        "sockets.bind",
        "sockets.node",
        "sockets.socketset",
        "sockets.task",
        "spec",
    ],
    "rendezvous.thread": [
        "errors",
        "rendezvous.react",
        "rendezvous.takeover",
        "sockets.socketset",
    ],
    "supervise": [],
    "supervise.exit": ["spec", "unitfile.signals"],
    "supervise.family": ["spec", "supervise.exit"],
    "supervise.probe": [
        "errors",
        "rendezvous.react",
        "spec",
        "supervise.exit",
        "unitfile.readiness",
    ],
    "supervise.relay": ["rendezvous.react"],
    "supervise.limit": ["spec"],
    "supervise.connection": ["sockets.caller"],
    "supervise.watch": [],
    "daemon": [
        "errors",
        "fd.probe",
        "activation.notify",
        "activation.receive",
        "activation.environ",
    ],
    "library": [
        "errors",
        "spec",
        "directives",
        "unitfile.listen",
        "unitfile.load",
        "unitfile.unit",
        "unitfile.values",
        "sockets.bind",
        "sockets.resolve",
        "sockets.socketset",
        "sockets.task",
        "activation.receive",
        "unitfile.check",
        "unitfile.check_service",
        "unitfile.explain",
        "rendezvous.furnish",
        "rendezvous.take",
        "rendezvous.thread",
        "sockets.holder",
    ],
    "aio": [
        "errors",
        "library",
        "rendezvous.command",
        "rendezvous.furnish",
        "rendezvous.react",
        "rendezvous.take",
        "rendezvous.takeover",
        "sockets.bind",
        "sockets.socketset",
        "sockets.task",
    ],
    "servers": [],
    "servers.drain": [
        "aio",
        "activation.notify",
        "errors",
        "fd.queue",
        "sockets.socketset",
    ],
    "servers.asyncio": ["activation.notify", "servers.drain"],
    "servers.uvicorn": ["activation.notify", "errors", "library", "servers.drain"],
    "servers.aiohttp": ["activation.notify", "library", "servers.drain"],
    "__init__": [],
    "cli": ["__init__", "errors", "cli.exits", "cli.output"],
    "cli.exits": ["errors"],
    "cli.output": [],
    "cli.logs": ["cli.output"],
    "cli.arguments": [],
    "cli.check": [
        "__init__",
        "errors",
        "directives",
        "service_directives",
        "unitfile.check_service",
        "unitfile.explain",
        "cli.exits",
        "cli.output",
    ],
    "cli.show": ["__init__", "cli.output", "unitfile.check_service", "unitfile.load"],
    "cli.definitions": ["__init__", "errors", "cli.output"],
    "cli.program": ["__init__", "activation.environ"],
    "cli.rendezvous": ["__init__", "fd.account", "cli.arguments"],
    "cli.exec": [
        "__init__",
        "cli.output",
        "cli.arguments",
        "cli.definitions",
        "cli.program",
        "cli.rendezvous",
    ],
    "cli.hold": ["__init__", "errors", "cli.output", "cli.definitions", "cli.rendezvous"],
    "cli.put": [
        "__init__",
        "unitfile.values",
        "cli.output",
        "cli.definitions",
        "cli.rendezvous",
    ],
    "cli.get": ["__init__", "cli.arguments", "cli.program", "cli.rendezvous"],
    "cli.list": ["__init__", "cli.output", "cli.rendezvous"],
    "cli.drop": ["__init__", "cli.rendezvous"],
    "__main__": ["cli"],
}

# Noun files compute; they may not touch the kernel, the environment or the clock.
PURE = [
    "errors",
    "spec",
    "directives",
    "unitfile.grammar",
    "unitfile.values",
    "unitfile.address",
    "unitfile.specifiers",
    "unitfile.foreign",
    "unitfile.unit",
    "service_directives",
    "unitfile.builder",
    "unitfile.command",
    "unitfile.envfile",
    "unitfile.foreign_service",
    "unitfile.service",
    "unitfile.service_values",
    "unitfile.explain",
    "unitfile.check",
    "unitfile.check_service",
    "unitfile.listen",
    "unitfile.readiness",
    "sockets.plan",
    "sockets.caller",
    "supervise.limit",
    "supervise.connection",
    "activation.environ",
    "activation.message",
    "activation.substitute",
    "activation.execution",
    "rendezvous.manifest",
    "rendezvous.messages",
    "rendezvous.wire",
    "rendezvous.policy",
    "rendezvous.tables",
    "rendezvous.passage",
    "rendezvous.estate",
    "rendezvous.actions",
    "rendezvous.machine",
    "rendezvous.owner",
    "rendezvous.client",
    "rendezvous.match",
    "rendezvous.memory",
]
IMPURE_MODULES = {
    "os", "select", "selectors", "signal", "subprocess", "time", "fcntl", "resource", "pwd", "grp",
    "threading", "pathlib", "tempfile", "shutil", "ctypes",
}  # fmt: skip
# What a pure file may use of the socket module besides its constants: these only convert text.
PURE_SOCKET_FUNCTIONS = {"inet_pton", "inet_ntop"}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


class _Imports(ast.NodeVisitor):
    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_If(self, node: ast.If) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert not node.level, "imports are absolute"
        assert node.module
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            is_module = inner.removeprefix("sockact.") in MODULES and inner.startswith("sockact.")
            self.found.append(inner if is_module else node.module)


def _imports(path: Path) -> Iterator[str]:
    visitor = _Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    yield from visitor.found


def _own_imports(path: Path) -> set[str]:
    own = (name for name in _imports(path) if name.split(".")[0] == "sockact")
    return {name.removeprefix("sockact").lstrip(".") or "__init__" for name in own}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module: str) -> None:
    """A module imports only what the table allows it."""
    assert module in MAY_IMPORT, f"sockact.{module} has no row in MAY_IMPORT"
    extra = _own_imports(MODULES[module]) - set(MAY_IMPORT[module])
    assert not extra, f"sockact.{module} may not import {sorted(extra)}"


def test_table_has_no_stale_rows() -> None:
    """Every row and every permission of the table is used."""
    assert set(MAY_IMPORT) == set(MODULES)
    unused = {
        module: sorted(set(allowed) - _own_imports(MODULES[module]))
        for module, allowed in MAY_IMPORT.items()
        if set(allowed) - _own_imports(MODULES[module])
    }
    assert not unused


def test_table_has_no_cycle() -> None:
    """Following the table never leads back to where one began."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"cycle: {' -> '.join((*path, module))}"
        if module not in done:
            for below in MAY_IMPORT[module]:
                visit(below, (*path, module))
            done.add(module)

    for module in MAY_IMPORT:
        visit(module, ())


@pytest.mark.parametrize("module", PURE)
def test_noun_files_are_pure(module: str) -> None:
    """A noun file imports nothing that acts, and takes only constants from the socket module."""
    source = MODULES[module].read_text(encoding="utf-8")
    roots = {name.split(".")[0] for name in _imports(MODULES[module])}
    assert not roots & IMPURE_MODULES
    for node in ast.walk(ast.parse(source)):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ("socket", "_socket")
        ):
            assert node.attr.isupper() or node.attr in PURE_SOCKET_FUNCTIONS
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("open", "print", "input", "exec", "eval")


def test_errors_import_nothing() -> None:
    """The exception tree stands on its own."""
    assert not list(_imports(MODULES["errors"]))
