"""Arguments that commands share: which sockets, and which program gets them."""

import abc

import click

_SUFFIX = ".socket"


class ProgramCommand(click.Command, abc.ABC):
    """A command with ``[OPTIONS] [WORD]... [--] COMMAND [ARGS]...``.

    What follows the words belongs to the program, options included.
    """

    def split(self, ctx: click.Context, args: list[str]) -> tuple[list[str], list[str], list[str]]:
        """Return options, words, and the program with its arguments."""
        options, words, rest = list[str](), list[str](), list(args)
        ended = False
        bare = click.Command(
            self.name, params=[one for one in self.params if isinstance(one, click.Option)]
        )
        while True:
            parser = bare.make_parser(ctx)
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
            if ended or not rest or not self.is_word(rest[0]):
                break
            words.append(rest.pop(0))
            if not rest:
                break
        ctx.meta[ENDED] = ended
        return options, words, rest

    @abc.abstractmethod
    def is_word(self, text: str) -> bool:
        """Whether a word in front of the program is not yet the program."""


ENDED = "sockact.options-ended"
"""In `click.Context.meta`: whether the words of the program have begun."""


class ActivationCommand(ProgramCommand):
    """A command with ``[OPTIONS] [UNIT]... [--] COMMAND [ARGS]...``.

    Options end at the first word that is neither an option nor a ``.socket`` unit, as with
    systemd-socket-activate, or at ``--``. The callback gets ``units`` and ``command``.

    Attributes:
        usage: What stands behind the options in the usage line.
    """

    usage: tuple[str, ...] = ("[UNIT.socket]...", "[--]", "COMMAND [ARGS]...")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split off units and command; click reads the options."""
        options, units, program = self.split(ctx, args)
        super().parse_args(ctx, options)
        ctx.params["units"] = tuple(units)
        ctx.params["command"] = tuple(program)
        return []

    def is_word(self, text: str) -> bool:
        """Whether it is a unit."""
        return text.endswith(_SUFFIX)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line behind the command's name."""
        return [*super().collect_usage_pieces(ctx), *self.usage]


class NamesCommand(ProgramCommand):
    """A command with ``[OPTIONS] ARGUMENT... -- COMMAND [ARGS]...``, which needs the ``--``.

    The callback gets its arguments, and ``command``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split off the command; click reads the rest."""
        options, words, program = self.split(ctx, args)
        super().parse_args(ctx, [*options, "--", *words])
        ctx.params["command"] = tuple(program)
        return []

    def is_word(self, text: str) -> bool:
        """Whether it is an argument: all are, in front of ``--``."""
        del text
        return True

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Return the usage line behind the command's name."""
        return [*super().collect_usage_pieces(ctx), "--", "COMMAND [ARGS]..."]
