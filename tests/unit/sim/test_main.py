"""A component as a process of its own."""

import asyncio
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from waiting import until

from .world import World, closed

LINGERS = "from wabiz_sim import __main__, coreapp; coreapp.Coreapp.linger_seconds = 19.0; __main__.main()"
"""A program that goes on serving that long after the first signal."""


async def _run(
    world: World, component: str, number: int, tmp_path: Path, how: tuple[str, str] = ("-m", "wabiz_sim"), /, **more: str
) -> asyncio.subprocess.Process:
    env = {
        "PYTHONPATH": ":".join(path for path in sys.path if path),
        "POD_NAME": component,
        "POD_IP": world.address(number),
        "WABIZ_LISTEN": world.address(number),
        "WABIZ_UPSTREAM": f"{world.address(250)}:8080",
        "WABIZ_STATE_DIR": str(tmp_path / f"{component}-process"),
        **more,
    }
    return await asyncio.create_subprocess_exec(sys.executable, *how, component, env=env, stderr=asyncio.subprocess.PIPE)


@pytest.mark.slow
async def test_all_three_run_and_end_on_sigterm(world: World, tmp_path: Path) -> None:
    parts = (("upstream", 250), ("coreapp", 1), ("webapp", 200))
    processes = [await _run(world, part, number, tmp_path) for part, number in parts]
    try:

        async def bootstrapped() -> bool:
            try:
                if not world.token:
                    await world.login()
                return len((await world.api("GET", "/v1/health"))[1].get("health", {})) == 1
            except (aiohttp.ClientError, OSError):
                return False

        await until(bootstrapped)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        ends = await asyncio.wait_for(asyncio.gather(*(process.communicate() for process in processes)), 15)
    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert closed(world.address(1), 6253)


async def test_a_second_signal_ends_it_at_once(world: World, tmp_path: Path) -> None:
    process = await _run(world, "coreapp", 1, tmp_path, ("-c", LINGERS))
    await until(lambda: not closed(world.address(1), 6253))
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)

    await asyncio.wait_for(process.communicate(), 15)


async def test_bad_settings_are_one_sentence(world: World, tmp_path: Path) -> None:
    process = await _run(world, "coreapp", 1, tmp_path, WABIZ_STATE_DIR="")
    _, errors = await process.communicate()

    assert process.returncode == 2
    assert errors.decode().splitlines() == [
        "wabiz_sim coreapp: WABIZ_STATE_DIR is not set; set it to a folder that survives the container (an emptyDir or a claim)"
    ]


async def test_a_taken_address_is_one_sentence(world: World, tmp_path: Path) -> None:
    await world.upstream()
    process = await _run(world, "upstream", 250, tmp_path)
    _, errors = await process.communicate()

    assert process.returncode == 1
    assert "already in use" in errors.decode().splitlines()[-1]
    assert "Traceback" not in errors.decode()


async def test_a_broken_database_is_one_sentence(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "upstream-process"
    folder.mkdir()
    (folder / "upstream.sqlite").write_text("no database " * 100)
    process = await _run(world, "upstream", 250, tmp_path)
    _, errors = await process.communicate()

    assert process.returncode == 1
    assert "cannot be opened" in errors.decode()
    assert "Traceback" not in errors.decode()


async def test_a_missing_library_is_one_sentence_that_names_the_extra(world: World, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('no psycopg here')\n", encoding="utf-8")
    path = ":".join([str(tmp_path), *(path for path in sys.path if path)])
    database = {f"WA_DB_{name}": "x" for name in ("HOSTNAME", "USERNAME", "PASSWORD")}
    more = {"PYTHONPATH": path, "WA_DB_ENGINE": "PGSQL", "WA_DB_PORT": "5432", **database}
    process = await _run(world, "upstream", 250, tmp_path, **more)
    _, said = await process.communicate()
    assert process.returncode == 2
    assert said.decode().splitlines()[-1].endswith("pip install 'whatsapp-operator[simulator]'")
    assert "Traceback" not in said.decode()
