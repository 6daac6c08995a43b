"""Settings that every test shares."""

import os
import sys
from pathlib import Path

# Tools of the same virtual environment (buf, protoc plugins) are found even when it is not activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
