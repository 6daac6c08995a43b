"""Where benchmarks find the data sets that no package brings."""

import argparse
import os
from pathlib import Path

_VARIABLE = "HEADRACE_DATA_DIR"


def data_dir(parser: argparse.ArgumentParser) -> Path:
    """Return the folder of the data sets; ends the program in one line where the variable is not set."""
    folder = os.environ.get(_VARIABLE)
    if not folder:
        parser.error(f"{_VARIABLE} must name the folder of the data sets")
    return Path(folder)
