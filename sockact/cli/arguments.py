"""Arguments that commands share: which sockets, and which program gets them."""

import click

_SUFFIX = ".socket"


class ActivationCommand(click.Command):
    """A command with ``[OPTIONS] [UNIT]... [--] COMMAND [ARGS]...``.

    Options end at the first word that is neither an option nor a ``.socket`` unit, as with
    systemd-socket-activate, or at ``--``; what follows belongs to the program, options included.
    The callback gets ``units`` and ``command``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split off units and command; click reads the options."""
        options, units, rest = list[str](), list[str](), list(args)
        while True:
            parser = self.make_parser(ctx)
            parser.allow_interspersed_args = False
            try:
                _, left, _ = parser.parse_args(args=list(rest))
            except click.UsageError as error:
                error.ctx = error.ctx or ctx  # so that the message names this command's --help
                raise
            used = rest[: len(rest) - len(left)]
            ended = bool(used) and used[-1] == "--"
            options += used[:-1] if ended else used
            rest = left
            if ended or not rest or not rest[0].endswith(_SUFFIX):
                break
            units.append(rest.pop(0))
            if not rest:
                break
        super().parse_args(ctx, options)
        ctx.params["units"] = tuple(units)
        ctx.params["command"] = tuple(rest)
        return []

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line behind the command's name."""
        return [*super().collect_usage_pieces(ctx), "[UNIT.socket]...", "[--]", "COMMAND [ARGS]..."]
