"""Where an attempt is, by the record of it: in which cluster, on which node, on which GPU."""

from __future__ import annotations

from pipeline.home.records import FOREGROUND, LOCAL, Entry

UUID_SHOWN = 12  # characters, as GPU-5d1c2a60


def where_of(entry: Entry) -> str:
    """Where an attempt was handed to, as `slurm job 12 on n1`, `ray on 10.0.0.3`; nothing of one on this machine."""
    executor, handle = entry.get("executor", LOCAL), entry.get("handle", {})
    if executor in (LOCAL, FOREGROUND):
        return ""
    node = f" on {handle['node']}" if handle.get("node") else ""
    is_named = handle.get("id", handle.get("name")) == handle.get("name")  # Ray takes our name
    job = "" if is_named else f" job {handle['id']}"
    return f"{executor}{job}{node}"


def gpu_of(entry: Entry) -> str:
    """The GPU of an attempt here, as `0 NVIDIA H200`; of one that nvidia-smi was not asked about, what was visible."""
    handle = entry.get("handle", {})
    return str(handle.get("gpu_name") or str(handle.get("gpu") or "")[:UUID_SHOWN])
