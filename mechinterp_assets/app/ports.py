"""The ports that the servers listen on, taken before anything is started."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from mechinterp_assets.app.mistakes import Mistake

HOST = "127.0.0.1"
_BACKLOG = 2048


@contextmanager
def listening(ports: Mapping[str, int]) -> Iterator[list[socket.socket]]:
    """Sockets that listen on the port of each option, closed at the end.

    They are handed to the servers: a port that was looked at and let go could be gone again.

    Raises:
        Mistake: a port is taken, forbidden, or named twice; none is held then.
    """
    if len(set(ports.values())) < len(ports):
        raise Mistake(f"{' and '.join(ports)} name the same port; give each its own")
    with ExitStack() as stack:
        yield [stack.enter_context(_listen(option, port)) for option, port in ports.items()]


def _listen(option: str, port: int) -> socket.socket:
    listener = socket.socket()
    # What lingers of an ended server is not in the way.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = (error.strerror or str(error)).lower()
        raise Mistake(
            f"port {port} of {HOST}: {reason}; name another with {option}", exit_code=1
        ) from None
    return listener
