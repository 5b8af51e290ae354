"""Prints the DATA records of Avro files as JSON lines, read by a stock library: `read_slot.py [--tail] LIBRARY FILE`.

With `--tail` a file may end in what is no block, as a slot of a journal does: what stands before that is printed.
"""

import base64
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def with_fastavro(file: BinaryIO) -> Iterator[Any]:
    import fastavro  # noqa: PLC0415

    return fastavro.reader(file)


def with_avro(file: BinaryIO) -> Iterator[Any]:
    from avro.datafile import DataFileReader  # noqa: PLC0415
    from avro.io import DatumReader  # noqa: PLC0415

    return DataFileReader(file, DatumReader())


def text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def line(record: dict[str, Any]) -> dict[str, Any]:
    """The record as `walctl dump` writes it."""
    return {
        **record,
        "timestamp": (record["timestamp"] - EPOCH) // timedelta(microseconds=1),
        "key": text(record["key"]),
        "headers": [{"name": header["name"], "value": text(header["value"])} for header in record["headers"]],
        "producer_id": text(record["producer_id"]),
        "ext": text(record["ext"]),
        "crc": f"{int.from_bytes(record['crc'], 'little'):08x}",
        "payload": text(record["payload"]),
    }


def main() -> None:
    arguments = sys.argv[1:]
    tail = arguments[0] == "--tail"
    library, *paths = arguments[tail:]
    for path in paths:
        with open(path, "rb") as file:
            records = iter({"fastavro": with_fastavro, "avro": with_avro}[library](file))
            while True:
                try:
                    record = next(records)
                except StopIteration:
                    break
                except Exception:
                    if tail:
                        break
                    raise
                if record["kind"] == "DATA":
                    print(json.dumps(line(record)))


if __name__ == "__main__":
    main()
