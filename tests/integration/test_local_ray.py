"""A Ray of our own: what is left out stays out, and Ray is itself again afterwards. `test_isolation.py` has the ports."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import psutil, ray
from ray._private import parameter, ray_constants
from ray._private.node import Node
from occpipe.pipeline.ray.local_ray import own_ray

def patched():
    from ray.data._internal import stats
    from ray.data._internal.cluster_autoscaler import rate_based_cluster_autoscaler as autoscaler
    return (
        parameter.RayParams, ray_constants.ENABLE_RAY_CLUSTER, Node.start_api_server,
        stats.get_or_create_stats_actor, autoscaler.DefaultAutoscalingCoordinator,
    )

before = patched()
with own_ray(128 << 20):
    import ray.data
    rows = ray.data.range(40, override_num_blocks=4).map_batches(lambda batch: batch, num_cpus=0.1)
    print("rows", sum(len(batch["id"]) for batch in rows.iter_batches()))
    print("actors", [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)])
    children = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    print("unwanted", [line for line in children if "monitor.py" in line or "dashboard.py" in line])
print("restored", patched() == before, ray.is_initialized())
"""


def test_ray_data_works_without_what_is_left_out() -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    made = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines() == ["rows 40", "actors []", "unwanted []", "restored True False"]
