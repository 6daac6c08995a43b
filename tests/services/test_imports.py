"""What routers use of the services stays light."""

import subprocess
import sys

LIGHT = (
    "services.access_interceptor",
    "services.chassis",
    "services.codec",
    "services.consul_leadership",
    "services.consul_membership",
    "services.consul_placement_store",
    "services.mirrored_placement_store",
    "services.status",
    "services.lmdb_user_store",
    "services.redis_user_store",
)
HEAVY = ("torch", "faiss", "ray", "tantivy", "tokenizers", "training")


def test_no_heavy_library_comes_along() -> None:
    code = f"import sys, {', '.join(LIGHT)}; print(*(name for name in {HEAVY} if name in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_status_needs_only_the_light_install() -> None:
    code = "import sys, services.status; print(*(n for n in ('numpy', 'lmdb', 'rich') if n in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""
