"""Settings that every test shares."""

import os
import signal
import sys
from pathlib import Path

from hypothesis import HealthCheck, settings

# Tools of the same virtual environment (buf, protoc plugins) are found even when it is not activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
# Torch's threads must not spin while they wait: tests share their cores with the processes they start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Models of tests are small, and several tests run at once: a second thread costs more than it computes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# What Ray starts would give way to all other tests.
os.environ.setdefault("RAY_worker_niceness", "0")
# A shell ignores Ctrl-C for what it runs in the background, and so would all processes that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# No test is timed: a busy machine is slow now and then, and that proves nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")
