"""The process that reads programs for a shard: `python -m shards.program_reader FD NICE`.

Asked by lines of JSON on its standard input, it answers each by a line on its standard output, and puts the
numbers into the file behind descriptor FD, storage after storage. It ends when its input does, as it does
when the shard is killed. `shards.program_process` is the other side.
"""

import json
import os
import sys
from pathlib import Path
from typing import IO

import torch

from shards.json_codec import to_json
from shards.program import PreparedProgram, prepare_program


def main() -> None:
    """Answer until the input ends."""
    descriptor, nice = map(int, sys.argv[1:])
    os.nice(nice)
    torch.set_num_threads(1)
    with os.fdopen(os.dup(1), "wb") as answers:
        # Whatever a library prints is no answer.
        os.dup2(2, 1)
        for request in sys.stdin.buffer:
            _answer(answers, **_answered(json.loads(request), descriptor))


def _answered(request: dict[str, str], descriptor: int) -> dict[str, object]:
    try:
        prepared = prepare_program(Path(request["path"]), request["device"])
    except ValueError as error:
        return {"refused": str(error)}
    _write(descriptor, prepared)
    return {"plan": to_json(prepared.plan)}


def _write(descriptor: int, prepared: PreparedProgram) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    with os.fdopen(descriptor, "wb", closefd=False) as file:
        for storage in prepared.storages:
            file.write(storage.numpy().data)


def _answer(answers: IO[bytes], **answer: object) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()
