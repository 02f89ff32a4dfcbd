"""Certificate authorities: who may vouch for the servers that this server talks to.

The authorities of the settings come in addition to those of the system and of certifi: a company's own authority
doesn't make public servers unreachable.
"""

import os
import re
import ssl
from functools import cache
from pathlib import Path

import certifi

_CERTIFICATE_FILE = re.compile(r".+\.(pem|crt|cer)|[0-9a-f]{8}\.\d+", re.IGNORECASE)


@cache
def trusting_context(authorities: tuple[Path, ...]) -> ssl.SSLContext:
    """The TLS settings of clients that trust these files and folders, too. The first call takes about 50 ms."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=certifi.where())
    _add_system(context)
    for path in authorities:
        add_authorities(context, path)
    if authorities:
        # From Python 3.13 on, authorities must have fields that those of many companies lack. Browsers and curl don't
        # ask for them.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def check_authorities(path: Path) -> None:
    """Raise ValueError if a file or folder doesn't exist or holds no certificate."""
    add_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), path)


def add_authorities(context: ssl.SSLContext, path: Path) -> None:
    """Trust the certificates of a file, or of the files in a folder, as PEM or DER. Raises ValueError."""
    try:
        if not path.is_dir():
            _add_file(context, path)
            return
        files = {file.resolve() for file in path.iterdir() if _CERTIFICATE_FILE.fullmatch(file.name)}
    except OSError as error:
        raise ValueError(f"{path} can't be read ({error.strerror or 'it holds no certificate'})") from None
    if not sum(_is_added(context, file) for file in sorted(files)):
        raise ValueError(f"{path} is a folder without a certificate that can be read (.pem, .crt or .cer)")


def _is_added(context: ssl.SSLContext, file: Path) -> bool:
    """Whether a file of a folder holds certificates; what else is there is passed over."""
    try:
        _add_file(context, file)
    except (OSError, ValueError):
        return False
    return True


def _add_file(context: ssl.SSLContext, file: Path) -> None:
    content = file.read_bytes()
    try:
        if b"-----BEGIN" in content:
            # One call for the whole file: a text may stand between the certificates.
            context.load_verify_locations(cafile=file)
        else:
            context.load_verify_locations(cadata=content)
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{file} holds no certificate that can be read (PEM or DER)") from None


def _add_system(context: ssl.SSLContext) -> None:
    """Trust the authorities of the system, whatever SSL_CERT_FILE says: with it, OpenSSL would leave them out."""
    if os.name == "nt":
        context.load_default_certs()
        return
    paths = ssl.get_default_verify_paths()
    file = paths.openssl_cafile if Path(paths.openssl_cafile).is_file() else None
    folder = paths.openssl_capath if Path(paths.openssl_capath).is_dir() else None
    if file or folder:
        context.load_verify_locations(file, folder)
