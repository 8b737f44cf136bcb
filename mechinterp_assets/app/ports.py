"""Whether ports can be served on, looked at before anything is started."""

import socket
from collections.abc import Mapping

from mechinterp_assets.app.mistakes import Mistake

HOST = "127.0.0.1"


def check_ports(ports: Mapping[str, int]) -> None:
    """Raise Mistake where the port of an option is taken, forbidden, or named twice."""
    if len(set(ports.values())) < len(ports):
        raise Mistake(f"{' and '.join(ports)} name the same port; give each its own")
    for option, port in ports.items():
        with socket.socket() as trial:
            # As servers do: what lingers of an ended one is not in the way.
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((HOST, port))
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                raise Mistake(
                    f"port {port} of {HOST}: {reason}; name another with {option}", exit_code=1
                ) from None
