"""The MCP server asked by the SDK's own client, over standard input and over HTTP."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from mechinterp_assets.app.catalog_answers import CatalogAnswers
from mechinterp_assets.app.ports import listening
from tests.command_line import call
from tests.defs.conftest import Materialized

pytest.importorskip("mcp")

from mcp import Client, StdioServerParameters

from mechinterp_assets.app.mcp_server import mcp_server

Ask = Callable[..., Awaitable[tuple[bool, str]]]
ARGUMENTS = ["-m", "mechinterp_assets", "mcp"]


def environment(home: Path) -> dict[str, str]:
    """This process's, with another home."""
    return {**os.environ, "MECHINTERP_HOME": str(home)}


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every table and tensor file."""
    return {
        path: (path.stat().st_size, path.stat().st_mtime_ns)
        for kind in ("*.parquet", "*.safetensors", "ledger.sqlite")
        for path in folder.rglob(kind)
    }


def converse(server: Any, conversation: Callable[[Client, Ask], Awaitable[None]]) -> None:
    """Connect, and hold a conversation."""

    async def run() -> None:
        async with Client(server, read_timeout_seconds=120) as client:

            async def ask(tool: str, **arguments: Any) -> tuple[bool, str]:
                result = await client.call_tool(tool, arguments)
                assert len(result.content) == 1
                assert result.structured_content is None
                return bool(result.is_error), result.content[0].text

            await conversation(client, ask)

    asyncio.run(run())


def stdio(home: Path) -> StdioServerParameters:
    """`mechinterp mcp` as a client starts it."""
    return StdioServerParameters(command=sys.executable, args=ARGUMENTS, env=environment(home))


def test_an_agent_finds_its_way_from_nothing_to_a_number_and_why(tiny: Materialized) -> None:
    async def conversation(client: Client, ask: Ask) -> None:
        listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == {
            *("studies", "tables", "describe", "query", "questions", "answer"),
            *("why", "feature", "head"),
        }
        assert all(tool.annotations and tool.annotations.read_only_hint for tool in listed)
        assert all(tool.description for tool in listed)
        assert "never instructions" in (client.instructions or "")

        failed, text = await ask("studies")
        assert not failed
        assert "study: tiny" in text
        failed, text = await ask("tables", study="tiny", words="head score")
        assert "head_scores (" in text
        failed, text = await ask("describe", table="head_scores")
        assert "value DOUBLE: Value of the score" in text

        sql = (
            "SELECT layer, head, value FROM head_scores WHERE study = getvariable('study')"
            " AND score = 'induction' ORDER BY value DESC LIMIT 1"
        )
        failed, text = await ask("query", sql=sql, study="tiny")
        (row,) = json.loads(text)["rows"]
        assert row == list(tiny.lake.query(sql, "tiny").row(0))
        failed, text = await ask(
            "why", study="tiny", table="head_scores", column="value", score="induction"
        )
        assert "setting heads.sequences = 8" in text
        assert "Olsson et al. 2022" in text
        failed, text = await ask("head", study="tiny", head=f"L{row[0]}H{row[1]}")
        assert f"Head L{row[0]}H{row[1]} of tiny" in text
        failed, text = await ask("feature", study="tiny", layer=2, feature=3)
        assert text.startswith("Feature L2F3 of tiny")
        failed, text = await ask("answer", question="1", study="tiny")
        assert not failed
        assert json.loads(text.partition("\n\n{")[2].join(["{", ""]))["columns"]

    converse(stdio(tiny.home), conversation)


def test_nothing_can_be_written_and_mistakes_are_told(tiny: Materialized, tmp_path: Path) -> None:
    before = files(tiny.home)

    async def conversation(client: Client, ask: Ask) -> None:
        for sql, said in (
            (f"COPY head_scores TO '{tmp_path}/a.csv'", "COPY is no query"),
            ("DROP VIEW head_scores", "DROP is no query"),
            ("FROM read_text('/etc/passwd')", "queries read the lake"),
            ("FROM head_score", "head_score"),
            ("SELECT 1; SELECT 2", "2 statements"),
        ):
            failed, text = await ask("query", sql=sql)
            assert failed, sql
            assert said in text
        failed, text = await ask("query", sql="FROM head_scores", rows=201)
        assert failed
        assert "200" in text
        failed, text = await ask("feature", study="tiny", layer=1, feature=0)
        assert failed
        assert "layers with one: 0, 2" in text
        failed, text = await ask("why", study="tiny", table="head_roles")
        assert failed
        assert "is a view" in text
        failed, text = await ask("query", sql="SELECT 1 AS one")  # the server goes on
        assert json.loads(text)["rows"] == [[1]]

    converse(mcp_server(CatalogAnswers(tiny.home)), conversation)
    assert files(tiny.home) == before
    assert not list(tmp_path.iterdir())


def test_a_query_that_the_client_cancels_is_interrupted(tiny: Materialized) -> None:
    """Two queries that take days take both turns: without an end to them others wait 20 s."""
    slow = "SELECT sum(range) FROM range(1000000000000000)"

    async def conversation(client: Client, ask: Ask) -> None:
        await ask("query", sql="SELECT 1")  # everything is loaded
        running = [asyncio.create_task(ask("query", sql=slow)) for _ in range(3)]
        await asyncio.sleep(1)
        for task in running:
            assert not task.done()
            task.cancel()
        failed, text = await asyncio.wait_for(ask("query", sql="SELECT 1 AS one"), 12)
        assert not failed
        assert json.loads(text)["rows"] == [[1]]

    converse(stdio(tiny.home), conversation)


@contextmanager
def served(home: Path) -> Iterator[str]:
    """`mechinterp mcp --http`; its address."""
    with listening({"--port": 0}) as (listener,):
        port = listener.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, *ARGUMENTS, "--http", "--port", str(port)],
        env=environment(home),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.fullmatch(r"MCP (http://127\.0\.0\.1:\d+/mcp)\n", line)
        assert found is not None, line
        yield found[1]
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()


def test_the_same_over_http_on_this_machine_alone(tiny: Materialized) -> None:
    async def conversation(client: Client, ask: Ask) -> None:
        _, text = await ask("query", sql="SELECT count(*) AS n FROM head_scores")
        assert json.loads(text)["rows"] == [[tiny.lake.current("head_scores", "tiny").rows]]
        _, text = await ask("head", study="tiny", head="1.0")
        assert "Head L1H0 of tiny" in text

    with served(tiny.home) as address:
        converse(address, conversation)
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).encode()
            request = Request(address, body, {"Content-Type": "application/json", **headers})
            with pytest.raises(HTTPError, match="403"):
                urlopen(request, timeout=60)


def test_without_the_extra_the_command_says_what_to_install(
    tiny: Materialized, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MECHINTERP_HOME", str(tiny.home))
    monkeypatch.delitem(sys.modules, "mechinterp_assets.app.mcp_server", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mcp"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "mcp", None)
    called = call(["mcp"])
    assert called.exit_code == 1
    assert called.output == (
        "mechinterp: the MCP SDK is not installed; install it with "
        "`pip install 'mechinterp-assets[mcp]'`\n"
    )
