"""The only file I/O: atomic writes, safetensors, JSON, records, hashes, the state of a job."""

from robustviews.artifacts.files import (
    RECORD,
    ArtifactError,
    atomic,
    atomic_folder,
    new_array,
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
from robustviews.artifacts.revision import commit

__all__ = [
    "RECORD",
    "ArtifactError",
    "Record",
    "atomic",
    "atomic_folder",
    "commit",
    "lock_file",
    "new_array",
    "packages",
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
