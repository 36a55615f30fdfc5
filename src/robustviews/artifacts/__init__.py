"""The only file I/O: atomic writes, safetensors, JSON, records, hashes, the state of a job."""

from robustviews.artifacts.files import (
    RECORD,
    ArtifactError,
    atomic,
    atomic_folder,
    new_array,
    parse_json,
    read_arrays,
    read_json,
    read_jsonl,
    read_tensors,
    reading,
    sha256,
    write_bytes,
    write_json,
    write_jsonl,
    write_tensors,
    write_text,
    writing,
)
from robustviews.artifacts.records import Record, lock_file, packages, write_record
from robustviews.artifacts.revision import commit, git
from robustviews.artifacts.start import Start

__all__ = [
    "RECORD",
    "ArtifactError",
    "Record",
    "Start",
    "atomic",
    "atomic_folder",
    "commit",
    "git",
    "lock_file",
    "new_array",
    "packages",
    "parse_json",
    "read_arrays",
    "read_json",
    "read_jsonl",
    "read_tensors",
    "reading",
    "sha256",
    "write_bytes",
    "write_json",
    "write_jsonl",
    "write_record",
    "write_tensors",
    "write_text",
    "writing",
]
