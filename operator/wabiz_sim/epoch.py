"""The fencing token of a shard: ``<n>-<random>``, where n grows with every handover. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """One attempt to hold a shard. Only ``n`` is compared for age; the text tells attempts of one n apart."""

    n: int
    text: str

    @classmethod
    def parse(cls, text: str) -> "Epoch":
        """Read ``12-ab3d9``.

        Raises ValueError when there is no whole number before the first hyphen or nothing behind it.
        """
        number, _, random = text.partition("-")
        if not (number.isascii() and number.isdigit() and random):
            msg = f"epoch {text!r} is not of the form <whole number>-<random>"
            raise ValueError(msg)
        return cls(n=int(number), text=text)

    def __str__(self) -> str:
        return self.text
