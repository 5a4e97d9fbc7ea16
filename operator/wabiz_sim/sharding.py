"""Recipient -> shard: the documented ``hash(recipient-id) % shards``. Pure."""

import zlib

ALLOWED_SHARDS = (1, 2, 4, 8, 16, 32)
"""The numbers of shards that Set Shards accepts (multiconnect page, "Sharding")."""


def shard_of(recipient: str, shards: int) -> int:
    """Return the shard, 0 to ``shards - 1``, that messages to and from ``recipient`` belong to.

    Only the digits of a phone number count: "+1 631 555 0000" and "16315550000" are one recipient, so one shard. A text without digits
    counts unchanged. The vendor does not document the hash; CRC-32 is stable over processes and machines.
    """
    digits = "".join(char for char in recipient if char.isascii() and char.isdigit())
    return zlib.crc32((digits or recipient).encode()) % shards
