"""Appends three orders, reads them back and truncates: `WALSTORAGE_SOCKET=... python example.py`."""

from walstorage_client import Log


def main() -> None:
    log = Log("orders-python")
    appended = log.append(b'{"order": 1}', b'{"order": 2}', b'{"order": 3}')
    print(f"appended LSN {appended.first} to {appended.last}")
    for lsn, payload in log.read(appended.first):
        print(f"read {lsn}: {payload.decode()}")
    print(f"truncated to {log.truncate(appended.last)}")
    log.close()


if __name__ == "__main__":
    main()
