#!/bin/sh
# Certificate requests that Go does not make; the keys are thrown away.
set -eu
cd "$(dirname "$0")"
request() { # file, digest, options of genpkey
  out=$1 digest=$2
  shift 2
  openssl genpkey "$@" -out key.tmp
  openssl req -new -key key.tmp "-$digest" -subj "/CN=$out" -out "$out.pem"
}
request rsa-512-md5 md5 -algorithm RSA -pkeyopt rsa_keygen_bits:512
request rsa-768-sha1 sha1 -algorithm RSA -pkeyopt rsa_keygen_bits:768
request rsa-1024-sha3 sha3-256 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
request rsa-1024-sha512-256 sha512-256 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
request rsa-1024-exponent-3 sha224 -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -pkeyopt rsa_keygen_pubexp:3
request rsa-1024-exponent-large sha256 -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -pkeyopt rsa_keygen_pubexp:18446744073709551629
for curve in P-224 P-521 secp160r1 prime192v1 secp256k1 brainpoolP224r1 brainpoolP320r1 brainpoolP384r1 brainpoolP512r1; do
  request "ec-$curve" sha256 -algorithm EC -pkeyopt "ec_paramgen_curve:$curve"
done
request ec-brainpoolP160r1 sha512 -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP160r1
request ec-brainpoolP192r1 sha1 -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP192r1
request ec-brainpoolP256r1 sha3-512 -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1
request ec-explicit sha256 -algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1 -pkeyopt ec_param_enc:explicit
request ec-explicit-P-256 sha384 -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit
openssl genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:1024 -pkeyopt dsa_paramgen_q_bits:160 -out params.tmp
request dsa-1024-sha256 sha256 -paramfile params.tmp
openssl genpkey -genparam -algorithm DSA -pkeyopt dsa_paramgen_bits:2048 -pkeyopt dsa_paramgen_q_bits:256 -out params.tmp
request dsa-2048-sha512 sha512 -paramfile params.tmp
openssl genpkey -algorithm Ed25519 -out key.tmp
openssl req -new -key key.tmp -subj /CN=ed25519 -out ed25519.pem
openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out key.tmp
openssl req -new -key key.tmp -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20 -subj /CN=pss -out pss-sha256.pem
openssl req -new -key key.tmp -sha1 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:20 -subj /CN=pss -out pss-defaults.pem
# that keyvet cannot check
mkdir -p unknown
openssl req -new -key key.tmp -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_mgf1_md:sha1 -subj /CN=pss -out pss-two-hashes.pem
openssl req -new -key key.tmp -ripemd160 -subj /CN=ripemd160 -out unknown/rsa-ripemd160.pem
openssl genpkey -algorithm Ed448 -out key.tmp
openssl req -new -key key.tmp -subj /CN=ed448 -out unknown/ed448.pem
openssl ecparam -name sect233r1 -genkey -noout -out key.tmp
openssl req -new -key key.tmp -sha256 -subj /CN=sect233r1 -out unknown/ec-sect233r1.pem
for f in *.pem; do openssl req -in "$f" -noout -verify; done
rm -f ./*.tmp
