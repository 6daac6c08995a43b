"""The client runs on what `pip install headrace` alone brings: grpc and protobuf."""

import subprocess
import sys

from deploy.settings import PROJECT_ROOT

PROGRAM = """
import sys

OURS = {"protos", "router", "services", "shards"}
LIGHT = {"google", "grpc", "grpc_status", "typing_extensions"}


class OnlyLight:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in OURS | LIGHT | sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, OnlyLight())
import router.client
print(len(router.client.__all__))
"""


def test_the_client_is_imported_without_anything_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
