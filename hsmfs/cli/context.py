"""What every command of hsmctl shares: the configuration, the daemon's API, and the output.

Heavy imports (pydantic) happen inside the properties, when a command first needs them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ConfigError
from ..places import CONFIG, Places, glance

if TYPE_CHECKING:
    from ..config import Config
    from .client import Client
    from .links import Link
    from .output import Out

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Server:
    """A daemon on another machine, and how it knows us."""

    url: str
    token: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    ca: Path | None = None


class Ctl:
    """The context object of a run of hsmctl; with a server, another machine's daemon is asked."""

    def __init__(
        self,
        config_path: Path | None,
        as_json: bool,
        no_color: bool,
        server: Server | None = None,
    ) -> None:
        self.config_path = config_path
        self.as_json = as_json
        self.no_color = no_color
        self.server = server

    @cached_property
    def config(self) -> Config:
        """The configuration. Raises ConfigError, also if it is another machine's."""
        from .. import config

        if self.server is not None:
            raise ConfigError(
                "this command works on the machine of hsmfsd only",
                next_step=f"run it there, without --server {self.server.url}",
            )
        return config.load(self.file)

    @cached_property
    def client(self) -> Client:
        """The daemon's API; connects with the first request."""
        from .client import Client

        return Client(self._link())

    def _link(self) -> Link:
        from .links import ServerLink, SocketLink

        if (server := self.server) is None:
            return SocketLink(self._places.socket)
        return ServerLink(
            server.url, token=server.token, certificate=server.certificate, key=server.key,
            ca=server.ca,
        )  # fmt: skip

    @cached_property
    def _places(self) -> Places:
        daemon = self.config.daemon if (seen := glance(self.file)) is None else seen
        return Places(daemon.socket, daemon.mountpoint)

    @property
    def file(self) -> Path:
        """The configuration's path."""
        return self.config_path or CONFIG

    @property
    def mountpoint(self) -> Path:
        """Where paths begin: the mountpoint, or for another machine the namespace's root."""
        return self._places.mountpoint if self.server is None else Path("/")

    @cached_property
    def out(self) -> Out:
        """Where answers go."""
        from .output import Out

        return Out(self.as_json, self.no_color)

    def namespace(self, path: str) -> bytes:
        """The namespace path, from its root and with a slash, of a path under the mountpoint."""
        from .paths import to_namespace

        at = path if self.server is None else os.path.join("/", path)
        return to_namespace(at, self.mountpoint)

    def shown(self, item: dict[str, Any]) -> str:
        """A path of the API as a path under the mountpoint, safe to print."""
        from .paths import from_namespace

        return from_namespace(item, self.mountpoint)

    def name(self, item: dict[str, Any]) -> str:
        """A name of the API, safe to print."""
        import base64

        from ..logs import printable

        return printable(base64.b64decode(item["path_b64"]))


def json_option(command: F) -> F:
    """Lets `--json` stand behind the command, too; the command gets the Ctl as first argument."""

    def into_context(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.ensure_object(Ctl).as_json = True

    option = click.option(
        "--json", is_flag=True, expose_value=False, callback=into_context,
        help="Answer in JSON, for programs.",
    )  # fmt: skip
    return option(click.pass_obj(command))  # type: ignore[return-value]


def paths_argument(command: F) -> F:
    """One or more PATH arguments."""
    return click.argument("paths", metavar="PATH...", nargs=-1, required=True)(command)


def path_query(path: bytes) -> dict[str, str]:
    """A namespace path as the API's query wants it, whatever its bytes."""
    import base64

    return {"path_b64": base64.b64encode(path).decode("ascii")}


def path_list(ctl: Ctl, paths: tuple[str, ...]) -> list[dict[str, str]]:
    """PATH arguments as the API's orders want them."""
    return [path_query(ctl.namespace(path)) for path in paths]
