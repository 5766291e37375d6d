"""The address of a storage, which may hold a password: shown without it, wherever it is shown."""

from __future__ import annotations

import re
from urllib.parse import unquote

MASK = "***"
VARIABLE = "FRACSPIKE_STORAGE"
#: parameters of an address whose values are secret, such as ``?password=`` or ``&sslpassword=``
SECRET = re.compile(r"([?&][^=&#]*(?:pass|pwd|secret|token|key)[^=&#]*=)([^&#]*)", re.IGNORECASE)
PIECE = 3  # characters: shorter pieces of a password occur in other words by chance


class Address:
    """Where a sweep is kept.

    Its text form, its ``repr`` and whatever has passed through :meth:`hide` hold no password. The real
    address is ``url``.

    Args:
        url: ``sqlite:///PATH``, ``postgresql://USER:PASSWORD@HOST/NAME``, or the path of a journal.

    >>> address = Address("postgresql://ann:s3cret@host/sweeps?sslpassword=other")
    >>> print(address)
    postgresql://ann:***@host/sweeps?sslpassword=***
    >>> address.hide("no user ann with s3cret")
    'no user ann with ***'
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._shown, secrets = _split(url)
        self._secrets = sorted({one for secret in secrets for one in _forms(secret)}, key=len, reverse=True)

    @property
    def secret(self) -> bool:
        """Whether there is a password in it."""
        return bool(self._secrets)

    def hide(self, text: str) -> str:
        """Return a text, such as a driver's error, without the password or parts of it."""
        text = text.replace(self.url, self._shown)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"Address({self._shown!r})"


def _split(url: str) -> tuple[str, list[str]]:
    """Return an address without its secrets, and these as they stand in it."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url, []
    secrets = []
    user, at, place = rest.rpartition("@")  # a password that is not encoded may hold an @ of its own
    name, colon, password = user.partition(":")
    if password:
        secrets.append(password)
        user = f"{name}{colon}{MASK}"
    secrets += [match[2] for match in SECRET.finditer(place) if match[2]]
    return f"{scheme}://{user}{at}{SECRET.sub(lambda match: match[1] + MASK, place)}", secrets


def _forms(secret: str) -> set[str]:
    """Return how a secret may appear: as it is, decoded, and in pieces where a driver took it apart."""
    whole = {secret, unquote(secret)}
    cuts = (r"[@:/\s]", r"[@:/?#&=%\s]")
    pieces = {piece for form in whole for cut in cuts for piece in re.split(cut, form)}
    return {one for one in whole if one} | {piece for piece in pieces if len(piece) >= PIECE}
