"""Ports are taken for good before anything is started, or none is."""

import socket

import pytest

from mechinterp_assets.app.mistakes import Mistake
from mechinterp_assets.app.ports import HOST, listening


def test_a_port_that_was_found_free_stays_ours() -> None:
    with listening({"--port": 0}) as (listener,):
        port = listener.getsockname()[1]
        message = f"port {port} of 127.0.0.1: address already in use; name another with --other"
        with pytest.raises(Mistake, match=message), listening({"--other": port}):
            pass
        with socket.create_connection((HOST, port), timeout=5) as client:
            assert client.getpeername() == (HOST, port)


def test_ports_are_let_go_together() -> None:
    with listening({"--port": 0}) as (listener,):
        port = listener.getsockname()[1]
    with listening({"--port": 0}) as (other,):
        taken = other.getsockname()[1]
        ports = {"--port": port, "--dashboards-port": taken}
        with pytest.raises(Mistake, match="--dashboards-port"), listening(ports):
            pass
        with listening({"--port": port}) as (again,):
            assert again.getsockname() == (HOST, port)
