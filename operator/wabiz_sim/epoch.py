"""The fencing token of a shard: ``<n>-<random>``, where n grows with every handover. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """One attempt to hold a shard. Only ``n`` is compared for age; the text tells attempts of one n apart."""

    n: int
    text: str

    @classmethod
    def parse(cls, text: object) -> "Epoch":
        """Read ``12-ab3d9``.

        Raises ValueError if it is not text, has no whole number before the first hyphen, or nothing after it.
        """
        if isinstance(text, str):
            number, _, random = text.partition("-")
            if number.isascii() and number.isdigit() and random:
                return cls(n=int(number), text=text)
        msg = f"epoch {text!r} is not of the form <whole number>-<random>"
        raise ValueError(msg)

    def __str__(self) -> str:
        return self.text
