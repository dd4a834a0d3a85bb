"""Test double of a Kubernetes API: the page that a connection test reads, over TLS with its own authority."""

import base64
import json
import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

TOKEN = "token-of-the-cluster"


class Issuer:
    """Certificate authority and its signed certificates, in PEM format."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.certificate = self._sign(self._name, self._key, authority=True).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """Return a certificate and key for `name` at 127.0.0.1."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        formats = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, *formats)
        return self._sign(subject, key).public_bytes(serialization.Encoding.PEM), pem

    def _sign(self, subject: x509.Name, key: Any, authority: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        return builder.add_extension(names, critical=False).sign(self._key, hashes.SHA256())


class Kubernetes:
    """API at `cluster.url` that accepts a token or a certificate of its authority: `with Kubernetes() as cluster:`."""

    def __init__(self) -> None:
        self.issuer = Issuer()
        self.status, self.body = 200, json.dumps({"gitVersion": "v1.31.2"}).encode()
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str, bool]] = []  # path, Authorization header, whether a certificate was presented

    def __enter__(self) -> "Kubernetes":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.issuer.certificate.decode())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "server.pem")
            path.write_bytes(b"".join(self.issuer.issue("server")))
            context.load_cert_chain(path)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"cluster": self}))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def kubeconfig(self, user: dict[str, Any] | None = None, **cluster: Any) -> str:
        known = {"server": self.url, "certificate-authority-data": base64.b64encode(self.issuer.certificate).decode()}
        return kubeconfig({**known, **cluster}, {"token": TOKEN} if user is None else user)


def kubeconfig(cluster: dict[str, Any], user: dict[str, Any], **more: Any) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    return yaml.safe_dump({**document, **more})


class _Handler(BaseHTTPRequestHandler):
    cluster: Kubernetes

    def do_GET(self) -> None:
        link: Any = self.connection
        certificate, authorization = bool(link.getpeercert()), self.headers.get("Authorization", "")
        self.cluster.asked.append((self.path, authorization, certificate))
        status = self.cluster.status if certificate or authorization == f"Bearer {TOKEN}" else 401
        self.send_response(status)
        for name, value in self.cluster.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.cluster.body)))
        self.end_headers()
        self.wfile.write(self.cluster.body)

    def log_message(self, *_: object) -> None:
        pass
