"""Pictures that say something of themselves: in XMP, IPTC, text chunks or a signed manifest."""

import datetime
import io
import json
import struct
from functools import cache
from typing import Any

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.replicas.pictures import encoded, picture

NAMESPACES = {
    "dc": "http://purl.org/dc/elements/1.1/",
    "cc": "http://creativecommons.org/ns#",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpMM": "http://ns.adobe.com/xap/1.0/mm/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "tdm": "http://www.w3.org/ns/tdmrep/",
    "TC260": "http://www.tc260.org.cn/ns/AIGC/1.0/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
}
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
AI_MADE = f"{SOURCE_TYPES}trainedAlgorithmicMedia"
NO_TRAINING = "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"
CC_BY = "https://creativecommons.org/licenses/by/4.0/"


def xmp(content: str = "", **attributes: str) -> bytes:
    """Return a packet with elements, and attributes named like `dc__format`."""
    declared = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    shown = " ".join(f'{name.replace("__", ":")}="{text}"' for name, text in attributes.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF {declared}>'
        f'<rdf:Description rdf:about="" {shown}>{content}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()


def listed(name: str, *values: str, kind: str = "Seq") -> str:
    """Return a property of XMP that has a list of values."""
    items = "".join(f"<rdf:li>{value}</rdf:li>" for value in values)
    return f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>"


def photoshop_segment(*data_sets: tuple[int, int, bytes]) -> bytes:
    """Return the APP13 segment of a JPEG with IPTC: record, number and value of each data set."""
    block = b""
    for record, number, value in data_sets:
        block += struct.pack(">BBBH", 0x1C, record, number, len(value)) + value
    other = b"8BIM" + struct.pack(">H", 0x0425) + b"\x00\x00" + struct.pack(">I", 3) + b"abc\x00"
    resource = b"8BIM" + struct.pack(">H", 0x0404) + b"\x00\x00" + struct.pack(">I", len(block))
    return segment(0xED, b"Photoshop 3.0\x00" + other + resource + block)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(data: bytes, *segments: bytes) -> bytes:
    """Put segments at the beginning of a JPEG."""
    return data[:2] + b"".join(segments) + data[2:]


def png_with_texts(image: Image.Image, **texts: str) -> bytes:
    info = PngInfo()
    for keyword, text in texts.items():
        info.add_text(keyword, text)
    return encoded(image, "PNG", pnginfo=info)


@cache
def _signer_keys() -> tuple[bytes, bytes]:
    """Return a chain of two certificates and the private key of the first, as PEM."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    authority = _name("Test authority")
    root = _certificate(authority, authority, authority_key, authority_key, is_authority=True)
    leaf = _certificate(_name("Test signer"), authority, key, authority_key, is_authority=False)
    encoding = serialization.Encoding.PEM
    chain = leaf.public_bytes(encoding) + root.public_bytes(encoding)
    plain = serialization.NoEncryption()
    return chain, key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain)


def _name(text: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests"),
            x509.NameAttribute(NameOID.COMMON_NAME, text),
        ]
    )


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    uses = x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(uses, critical=True)
        .add_extension(authority_key, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if not is_authority:
        purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(purpose, critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def signed(data: bytes, mime: str, assertions: dict[str, Any], kind: str = "") -> bytes:
    """Return a picture with a signed C2PA manifest.

    `assertions` are by label; `kind` is the digital source type of the action that made it.
    """
    chain, key = _signer_keys()
    action: dict[str, Any] = {"action": "c2pa.created"}
    action["digitalSourceType"] = kind or f"{SOURCE_TYPES}digitalCapture"
    entries = [{"label": "c2pa.actions", "data": {"actions": [action]}}]
    for label, content in assertions.items():
        entries.append({"label": label, "data": content})
    manifest = {
        "claim_generator_info": [{"name": "tests", "version": "1"}],
        "title": "A picture",
        "format": mime,
        "assertions": entries,
    }
    information = c2pa.C2paSignerInfo(b"es256", chain, key, None)
    target = io.BytesIO()
    with c2pa.Signer.from_info(information) as signer, c2pa.Builder(manifest) as builder:
        builder.sign(signer, mime, io.BytesIO(data), target)
    return target.getvalue()


def reserving(use: str = "notAllowed", name: str = "cawg.ai_training") -> dict[str, Any]:
    """Return the content of an assertion about training and data mining."""
    return {"entries": {name: {"use": use}}}


def manifest_of(data: bytes, mime: str) -> dict[str, Any]:
    """Return what C2PA's own library reads, without asking any network."""
    settings = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    with c2pa.Context.from_dict(settings) as context:
        reader = c2pa.Reader(mime, io.BytesIO(data), context=context)
        with reader:
            content: dict[str, Any] = json.loads(reader.json())
    return content


def marked(seed: int, **attributes: str) -> bytes:
    """Return a JPEG with XMP."""
    return encoded(picture(seed), "JPEG", xmp=xmp(**attributes))
