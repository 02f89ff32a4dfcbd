"""Files and folders with certificates of authorities."""

import ssl
from pathlib import Path

import certifi
import pytest

from backend.kit.network.authorities import check_authorities, trusting_context
from tests.support.networks import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


def names(context: ssl.SSLContext) -> list[str]:
    """The subjects of the trusted authorities."""
    return [str(certificate["subject"]) for certificate in context.get_ca_certs()]


@pytest.mark.parametrize("form", ["pem", "der", "folder", "bundle"])
def test_a_certificate_is_trusted_beside_the_usual_ones(form: str, authority: Authority, tmp_path: Path) -> None:
    pem = authority.file.read_text()
    path = tmp_path / "ca.cer"
    match form:
        case "der":
            path.write_bytes(ssl.PEM_cert_to_DER_cert(pem))
        case "folder":
            (tmp_path / "README").write_text("nothing")
            (tmp_path / "broken.pem").write_text("nothing")
            path.write_text(pem)
            path = tmp_path
        case "bundle":
            path.write_text(f"# ours\n{pem}\n# others\n{Path(certifi.where()).read_text()}")
        case _:
            path.write_text(pem)
    check_authorities(path)
    trusted = names(trusting_context((path,)))
    assert "Our Company" in str(trusted) and len(trusted) > 50
    assert "Our Company" not in str(names(trusting_context(())))


def test_the_usual_checks_are_on(authority: Authority) -> None:
    context = trusting_context((authority.file,))
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert trusting_context((authority.file,)) is context


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem", "text.pem", "half.pem", "key.pem", "folder"])
def test_what_holds_no_certificate_is_refused(name: str, authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("nothing")
    (tmp_path / "empty.pem").touch()
    (tmp_path / "text.pem").write_text("nothing")
    (tmp_path / "half.pem").write_text(authority.file.read_text()[:300])
    (tmp_path / "key.pem").write_text((authority.file.parent / "ca.key").read_text())
    with pytest.raises(ValueError, match=name):
        check_authorities(tmp_path / name)
