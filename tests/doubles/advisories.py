"""Test double of an advisory source, reached like a server on the internet: through a proxy, with TLS.

It answers for every host, so no host name is needed. Each CONNECT gets its own certificate, signed by an authority that
only the tests trust.
"""

import contextlib
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Known packages: (name, version) to (status, vulnerabilities).
Knowledge = Callable[[str, str], tuple[int, list[dict[str, Any]]]]


def vulnerability(id: str, fixed_in: str) -> dict[str, Any]:
    return {"id": id, "aliases": [], "fixed_in": [fixed_in], "summary": "bad", "withdrawn": None, "published": None}


class Authority:
    def __init__(self, folder: Path) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
        self.folder, self.file = folder, folder / "authority.pem"
        self.file.write_bytes(self._sign(self.name, self.key, None).public_bytes(serialization.Encoding.PEM))

    def context(self, host: str) -> ssl.SSLContext:
        """Return the TLS context of a server named `host`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")]), key, host)
        path = self.folder / f"{host}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _sign(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, host: str | None) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if host:
            builder = builder.add_extension(x509.SubjectAlternativeName([_general(host)]), critical=False)
        return builder.sign(self.key, hashes.SHA256())


def _general(host: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(host))
    return x509.DNSName(host)


@contextlib.contextmanager
def running(folder: Path, knowledge: Knowledge) -> Iterator[dict[str, str]]:
    """Run the double. Yield environment variables with which a program reaches only the double."""
    authority, contexts = Authority(folder), dict[str, ssl.SSLContext]()

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            host = _head(connection).split()[1].rpartition(":")[0]
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            context = contexts.setdefault(host, authority.context(host))
            with context.wrap_socket(connection, server_side=True) as secured:
                while head := _head(secured):
                    name, version = head.split()[1].split("/")[2:4]
                    status, known = knowledge(name, version)
                    body = json.dumps({"vulnerabilities": known}).encode()
                    secured.sendall(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        proxy = f"http://127.0.0.1:{listening.getsockname()[1]}"
        yield {"HTTPS_PROXY": proxy, "https_proxy": proxy, "NO_PROXY": "", "no_proxy": ""} | {
            "REQUESTS_CA_BUNDLE": str(authority.file)
        }
        listening.shutdown(socket.SHUT_RDWR)


def _head(connection: socket.socket) -> str:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (part := connection.recv(65536)):
            return ""
        data += part
    return data.decode()
