"""Recipient -> shard: the documented ``hash(recipient-id) % shards``. Pure."""

import zlib

ALLOWED_SHARDS = (1, 2, 4, 8, 16, 32)
"""The only numbers of shards that Set Shards takes (multiconnect page, "Sharding")."""


def shard_of(recipient: str, shards: int) -> int:
    """Return the shard, 0 to ``shards - 1``, that messages to and from ``recipient`` belong to.

    The vendor does not say which hash it is; CRC-32 is stable over processes and machines.
    """
    return zlib.crc32(recipient.encode()) % shards
