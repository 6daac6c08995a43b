"""Bundles whose programs are there for ONNX Runtime too, as training writes them."""

import shutil
from dataclasses import replace
from pathlib import Path

import torch

from shards.bundle import read_manifest, write_bundle
from shards.manifest import MANIFEST_FILE
from training.onnx_export import to_onnx


def write_with_onnx(root: Path, original: Path) -> Path:
    """Write a bundle again below `root`, with each of its programs in both forms."""
    manifest = read_manifest(original)
    programs = {
        name: replace(program, onnx_file=f"{name}.onnx") for name, program in manifest.programs.items()
    }

    def fill(folder: Path) -> None:
        shutil.copytree(original, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST_FILE))
        for program in programs.values():
            exported = torch.export.load(original / program.file)
            (folder / program.onnx_file).write_bytes(to_onnx(exported))

    return write_bundle(root, replace(manifest, programs=programs), fill)
