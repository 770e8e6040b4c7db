#!/bin/sh
# Makes throw-away OpenPGP keys of every algorithm that GnuPG has, and
# gpg.golden: for each file the algorithm (RFC 9580, section 9.1), the size and
# the curve of each key in it. Not part of any test.
set -eu
cd "$(dirname "$0")"
rm -rf gpg
mkdir gpg
home=$(mktemp -d)
g() { gpg --homedir "$home" --batch --quiet --pinentry-mode loopback --passphrase '' "$@" 2>/dev/null; }
make() { # name, key type and options, subkey type and options
  printf '%%no-protection\nKey-Type: %s\n%b' "$2" "$3" > "$home/p"
  printf 'Subkey-Type: %s\n%b' "$4" "$5" >> "$home/p"
  printf 'Name-Real: keyvet %s\nExpire-Date: 0\n%%commit\n' "$1" >> "$home/p"
  g --gen-key "$home/p"
  g --armor --export "keyvet $1" > "gpg/$1.asc"
  g --export "keyvet $1" > "gpg/$1.gpg"
  g --armor --export-secret-keys "keyvet $1" > "gpg/$1-secret.asc"
}
make rsa RSA 'Key-Length: 2048\n' RSA 'Subkey-Length: 2048\n'
make dsa DSA 'Key-Length: 2048\n' ELG 'Subkey-Length: 2048\n'
make ed25519 EDDSA 'Key-Curve: ed25519\n' ECDH 'Subkey-Curve: cv25519\n'
for c in nistp256 nistp384 nistp521 secp256k1 brainpoolP256r1; do make "$c" ECDSA "Key-Curve: $c\n" ECDH "Subkey-Curve: $c\n"; done
for f in gpg/*; do
  gpg --homedir "$home" --batch --with-colons --show-keys "$f" 2>/dev/null | awk -F: -v f="${f#gpg/}" '$1 ~ /^(pub|sub|sec|ssb)$/ { printf "%s %s %s %s\n", f, $4, $3, $17 }'
done > gpg.golden
gpgconf --homedir "$home" --kill all
rm -rf "$home"
