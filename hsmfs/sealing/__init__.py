"""Sealed packages and signed papers: Ed25519 signatures that stock tools verify.

Knows files and keys, and nothing of the daemon; `hsmctl` is its user. The formats are specified in
docs/sealing.md, so that a stranger can verify them with sha256sum and openssl.
"""
