"""Where TensorBoard answers for a home: each address is in a lease, and is believed while its holder lives.

`pipeline up` holds it. One that is killed leaves a file that nobody holds, and a worker's repair removes it.
"""

from __future__ import annotations

import contextlib
import os
import secrets

from pipeline.home import durable
from pipeline.home.lease import Lease
from pipeline.home.paths import QueuePaths

MAX_BYTES = 1000  # of an address


def hold(paths: QueuePaths, url: str) -> Lease:
    """Tells that TensorBoard answers there, until the lease is released. Raises OSError."""
    while (lease := Lease.acquire(paths.board_lease(secrets.token_hex(4)))) is None:
        pass  # somebody is looking whether it is held, and is in the way
    try:
        os.write(lease.fd, url.encode())
    except OSError:
        lease.release()
        raise
    return lease


def answering(paths: QueuePaths) -> list[str]:
    """Returns the addresses where TensorBoard answers now, each once, without asking there."""
    found = set()
    for path in paths.leases.glob(paths.board_lease("*").name):
        with contextlib.suppress(OSError, ValueError):  # gone meanwhile, or no file of ours
            if Lease.is_held(path):
                found.add(durable.read_small(path, limit=MAX_BYTES).decode())
    return sorted(filter(_is_address, found))


def _is_address(text: str) -> bool:
    """Not so for a moment: a lease is there before its text."""
    return text.startswith("http") and text.isprintable() and len(text) <= MAX_BYTES
