"""`make up` where something else has the port: one line says so, and nothing is started, stopped or changed."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest
from engine import Compose, compose, docker, engine, images  # noqa: F401 - fixtures

pytestmark = pytest.mark.containers


@contextlib.contextmanager
def a_program_has_a_port() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


@contextlib.contextmanager
def a_container_has_a_port(image: str) -> Iterator[int]:
    command = ["run", "--detach", "--rm", "--publish", "127.0.0.1::6006", "--entrypoint", "sleep", image, "600"]
    container = docker(*command)
    try:
        yield int(docker("port", container, "6006").rpartition(":")[2])
    finally:
        docker("rm", "--force", container)


def containers(compose: Compose) -> dict[str, str]:
    """All of the project, whatever their state: since when, by id."""
    ids = compose("ps", "--all", "--quiet").split()
    return {each: docker("inspect", "--format", "{{.State.Status}} {{.State.StartedAt}}", each) for each in ids}


@pytest.mark.parametrize("by", ["a program", "a container"])
def test_make_up_on_a_taken_port_names_another_and_starts_nothing(
    compose: Compose, images: dict[str, str], by: str
) -> None:
    of_engine = docker("ps", "--all", "--quiet")
    with a_program_has_a_port() if by == "a program" else a_container_has_a_port(images["tensorboard"]) as port:
        said = compose.make("up", f"PORT={port}", fails=True).splitlines()
        assert said[1] == f"port {port} is in use; choose another: make up PORT={port + 1}"
        assert len(said) == 3, "make adds that its target failed"
        assert containers(compose) == {}
    assert docker("ps", "--all", "--quiet") == of_engine


def test_what_was_up_stays_up_as_it_was_when_another_port_is_taken(compose: Compose) -> None:
    compose.make("up")
    before = containers(compose)
    assert len(before) == 2
    with a_program_has_a_port() as port:
        compose.make("up", f"PORT={port}", fails=True)
        assert containers(compose) == before
    assert f"TensorBoard: http://127.0.0.1:{compose.port}" in compose.make("up"), "its own port is not taken"
    assert containers(compose) == before
