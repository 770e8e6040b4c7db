#!/bin/sh
# Makes the throw-away keys beside this file anew, and openssl.golden. Needs
# openssl 3, ssh-keygen, swtpm and tpm2-tools. Not part of any test.
set -eu
cd "$(dirname "$0")"
rm -rf good bad
mkdir good bad
cd good
q() { "$@" >/dev/null 2>&1; }

# RSA, in every form
q openssl genrsa -out rsa-pkcs8.pem 2048
openssl rsa -in rsa-pkcs8.pem -traditional -out rsa-pkcs1.pem 2>/dev/null
openssl rsa -in rsa-pkcs8.pem -traditional -outform DER -out rsa-pkcs1.der 2>/dev/null
openssl pkcs8 -topk8 -nocrypt -in rsa-pkcs8.pem -outform DER -out rsa-pkcs8.der
openssl rsa -in rsa-pkcs8.pem -pubout -out rsa-spki.pem 2>/dev/null
openssl rsa -in rsa-pkcs8.pem -pubout -outform DER -out rsa-spki.der 2>/dev/null
openssl rsa -in rsa-pkcs8.pem -RSAPublicKey_out -out rsa-pkcs1-public.pem 2>/dev/null
openssl rsa -in rsa-pkcs8.pem -RSAPublicKey_out -outform DER -out rsa-pkcs1-public.der 2>/dev/null
q openssl genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_pss_keygen_md:sha256 -out rsa-pss.pem
openssl pkey -in rsa-pss.pem -pubout -out rsa-pss-spki.pem

# EC, in every form and on every curve of crypto/elliptic, and some others
for c in secp224r1:p224 prime256v1:p256 secp384r1:p384 secp521r1:p521 secp256k1:secp256k1 brainpoolP256r1:brainpool prime192v1:p192; do
  openssl ecparam -name "${c%%:*}" -genkey -out "ec-${c##*:}-sec1.pem"   # with EC PARAMETERS before it
  openssl pkcs8 -topk8 -nocrypt -in "ec-${c##*:}-sec1.pem" -out "ec-${c##*:}-pkcs8.pem"
  openssl ec -in "ec-${c##*:}-sec1.pem" -pubout -out "ec-${c##*:}-spki.pem" 2>/dev/null
done
openssl ec -in ec-p256-sec1.pem -outform DER -out ec-p256-sec1.der 2>/dev/null
openssl pkcs8 -topk8 -nocrypt -in ec-p256-sec1.pem -outform DER -out ec-p256-pkcs8.der
openssl ec -in ec-p256-sec1.pem -pubout -outform DER -out ec-p256-spki.der 2>/dev/null
openssl ec -in ec-p256-sec1.pem -pubout -conv_form compressed -out ec-p256-compressed.pem 2>/dev/null
openssl ec -in ec-p384-sec1.pem -pubout -conv_form hybrid -out ec-p384-hybrid.pem 2>/dev/null
openssl ec -in ec-p256-sec1.pem -no_public -out ec-p256-no-public.pem 2>/dev/null
openssl ec -in ec-p256-sec1.pem -param_enc explicit -out ec-explicit.pem 2>/dev/null

# the other algorithms
for a in ED25519 ED448 X25519 X448; do
  n=$(echo "$a" | tr A-Z a-z)
  openssl genpkey -algorithm "$a" -out "$n-pkcs8.pem"
  openssl pkey -in "$n-pkcs8.pem" -pubout -out "$n-spki.pem"
done
q openssl dsaparam -out dsaparam.tmp 1024
q openssl gendsa -out dsa-pkcs8.pem dsaparam.tmp
openssl dsa -in dsa-pkcs8.pem -pubout -out dsa-spki.pem 2>/dev/null
openssl pkey -in dsa-pkcs8.pem -traditional -out dsa-traditional.pem
rm dsaparam.tmp

# certificates: root, intermediate, leaf; requests
openssl req -x509 -new -key ec-p384-sec1.pem -subj "/CN=keyvet test root" -days 36500 -out root.pem
cat > ca.tmp <<'E'
basicConstraints=critical,CA:TRUE
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
E
openssl req -new -key rsa-pkcs8.pem -subj "/CN=keyvet test intermediate" -out inter.tmp
openssl x509 -req -in inter.tmp -CA root.pem -CAkey ec-p384-sec1.pem -set_serial 2 -days 36500 -extfile ca.tmp -out intermediate.pem 2>/dev/null
openssl req -new -key ec-p256-sec1.pem -subj "/CN=gateway-0042" -out csr.pem
openssl req -in csr.pem -outform DER -out csr.der
sed 's/CERTIFICATE REQUEST/NEW CERTIFICATE REQUEST/' csr.pem > csr-new.pem
printf 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n' > leaf.tmp
openssl x509 -req -in csr.pem -CA intermediate.pem -CAkey rsa-pkcs8.pem -set_serial 3 -days 36500 -extfile leaf.tmp -out leaf.pem 2>/dev/null
openssl x509 -in leaf.pem -outform DER -out leaf.der
openssl x509 -in leaf.pem -trustout -addtrust serverAuth -out leaf-trusted.pem
openssl x509 -in leaf.pem -text -out leaf-text.pem
cat leaf.pem intermediate.pem root.pem > fullchain.pem
cat root.pem leaf.pem intermediate.pem > fullchain-shuffled.pem
cat ec-p256-pkcs8.pem leaf.pem intermediate.pem > key-and-chain.pem
cat leaf.pem intermediate.pem rsa-pss.pem > foreign-key-and-chain.pem
sed 's/$/\r/' fullchain.pem > crlf.pem
{ printf '\357\273\277'; cat leaf.pem; } > bom.pem
sed 's/^/    /' leaf.pem > indented.pem
{ cat leaf.pem; tail -c 200 rsa-spki.der; } > garbage-after.pem
{ printf %s "$(cat leaf.pem)"; cat intermediate.pem; } > no-newline-between.pem
{ cat leaf.der; echo; } > trailing.der
openssl crl2pkcs7 -nocrl -certfile fullchain.pem -out pkcs7.pem
openssl crl2pkcs7 -nocrl -certfile fullchain.pem -outform DER -out pkcs7.der
rm ./*.tmp

# OpenSSH
for t in rsa:2048 ecdsa:256 ecdsa:384 ecdsa:521 ed25519:256 dsa:1024; do
  ssh-keygen -q -t "${t%%:*}" -b "${t##*:}" -N "" -C "keyvet test" -f "ssh-${t%%:*}-${t##*:}"
done
ssh-keygen -q -t ed25519 -N "throw-away" -C "keyvet test" -f ssh-encrypted
ssh-keygen -e -f ssh-rsa-2048.pub > rfc4716.pub
ssh-keygen -q -s ssh-ed25519-256 -I test -n host.example ssh-rsa-2048.pub   # ssh-rsa-2048-cert.pub
{
  echo '# who may log in'
  echo
  printf 'restrict,command="echo \\"ssh-rsa AAAA\\" now",from="10.0.0.0/8" %s\n' "$(cat ssh-rsa-2048.pub)"
  printf 'no-pty  %s\n' "$(cat ssh-ecdsa-256.pub)"
  printf '  %s\r\n' "$(cut -d' ' -f1,2 ssh-ed25519-256.pub)"
} > authorized_keys
{
  printf '|1|c2FsdA==|aGFzaA== %s\n' "$(cut -d' ' -f1,2 ssh-ecdsa-521.pub)"
  printf '@cert-authority *.example %s\n' "$(cat ssh-ed25519-256.pub)"
} > known_hosts

# TPM
flush() { tpm2_flushcontext -t; tpm2_flushcontext -l; }
state=$(mktemp -d)
swtpm_setup --tpm2 --tpmstate "$state" --createek --overwrite >/dev/null
swtpm socket --tpm2 --tpmstate "dir=$state" --server "type=unixio,path=$state/s" --ctrl "type=unixio,path=$state/s.ctrl" --flags not-need-init,startup-clear &
tpm=$!
while [ ! -S "$state/s" ]; do sleep 0.1; done
export TPM2TOOLS_TCTI="swtpm:path=$state/s"
for g in ecc256 ecc384 ecc521 rsa2048 rsa3072; do
  tpm2_createprimary -Q -C o -G "$g" -c "$state/$g.ctx"
  tpm2_readpublic -Q -c "$state/$g.ctx" -f tss -o "tpm2b-$g.bin"
  tpm2_readpublic -Q -c "$state/$g.ctx" -f pem -o "tpm2b-$g.tmp"
  flush
done
tail -c +3 tpm2b-ecc256.bin > tpmt-ecc256.bin
tail -c +3 tpm2b-rsa2048.bin > tpmt-rsa2048.bin
for g in ecc:ecdsa-sha256:null rsa2048:rsapss-sha256:null rsa2048:rsaes:null; do
  n=$(echo "${g%:null}" | tr : -)
  tpm2_create -Q -C "$state/ecc256.ctx" -G "$g" -u "tss2-$n.bin" -r "$state/priv"
  tpm2_encodeobject -Q -C "$state/ecc256.ctx" -u "tss2-$n.bin" -r "$state/priv" -o "tss2-$n.pem"
  flush
  tpm2_load -Q -C "$state/ecc256.ctx" -u "tss2-$n.bin" -r "$state/priv" -c "$state/$n.ctx"
  tpm2_readpublic -Q -c "$state/$n.ctx" -f pem -o "tss2-$n.tmp"
  flush
done
echo sealed > "$state/secret"
tpm2_create -Q -C "$state/ecc256.ctx" -i "$state/secret" -u ../bad/tpm-sealed.bin -r "$state/priv"
flush
cp "$state/ecc256.ctx" ../bad/tpm-context.bin
kill "$tpm"
rm -rf "$state"

# what openssl says of them
for f in *; do
  case $f in
  *.tmp) continue ;;
  fullchain*|crlf*|pkcs7*|rfc4716*|trailing*|no-newline*|key-and-chain*|foreign*|authorized_keys|known_hosts|*-cert.pub) continue ;;
  csr.der) spki=$(openssl req -inform DER -in "$f" -noout -pubkey) ;;
  csr*) spki=$(openssl req -in "$f" -noout -pubkey) ;;
  leaf.der) spki=$(openssl x509 -inform DER -in "$f" -noout -pubkey) ;;
  root*|inter*|leaf*|bom*|garbage*) spki=$(openssl x509 -in "$f" -noout -pubkey 2>/dev/null || true) ;;
  rsa-pkcs1-public.*) spki=$(openssl rsa -RSAPublicKey_in -in "$f" -pubout 2>/dev/null) ;;
  *spki*|*compressed*|*hybrid*) spki=$(openssl pkey -pubin -in "$f" -pubout) ;;
  ssh-encrypted|ssh-encrypted.pub|ssh-dsa*|ssh-ed25519*) continue ;;   # ssh-keygen exports neither
  ssh-*.pub) spki=$(ssh-keygen -e -m PKCS8 -f "$f") ;;
  ssh-*) spki=$(ssh-keygen -e -m PKCS8 -f "$f.pub") ;;
  tpm2b-*) spki=$(cat "${f%.bin}.tmp") ;;
  tpmt-*) n=${f#tpmt-}; spki=$(cat "tpm2b-${n%.bin}.tmp") ;;
  tss2-*) spki=$(cat "${f%.*}.tmp") ;;
  *) spki=$(openssl pkey -in "$f" -pubout 2>/dev/null || true) ;;
  esac
  [ -z "$spki" ] && continue
  # taken out of its PEM, not decoded and encoded again
  echo "$f $(echo "$spki" | sed '/^-----/d' | base64 -d | sha256sum | cut -d' ' -f1)"
done > ../openssl.golden
rm ./*.tmp

# what cannot be read
cd ../bad
: > empty
printf '  \n\n' > blank.pem
head -c 4096 /dev/urandom > random.bin
head -c 200 ../good/rsa-spki.der > truncated.der
head -c 2 ../good/leaf.der > header-alone.der
head -n 8 ../good/leaf.pem > truncated.pem
{ head -n 8 ../good/leaf.pem; tail -n 1 ../good/leaf.pem; } > truncated-inside.pem
{ head -n 8 ../good/leaf.pem; cat ../good/intermediate.pem; } > truncated-then-good.pem
sed 's/^MII/M!I/' ../good/leaf.pem > not-base64.pem
sed 's/END CERTIFICATE/END PUBLIC KEY/' ../good/leaf.pem > other-end.pem
tr '\n' ' ' < ../good/leaf.pem > one-line.pem
sed '/^-----/d' ../good/leaf.pem > base64.txt
printf '{"certificatePem": "%s\\n"}\n' "$(sed ':a;N;$!ba;s/\n/\\n/g' ../good/leaf.pem)" > aws-cli.json
iconv -f ASCII -t UTF-16 ../good/leaf.pem > utf16.pem
iconv -f ASCII -t UTF-16LE ../good/leaf.pem > utf16-no-bom.pem
openssl pkcs8 -topk8 -in ../good/ec-p256-sec1.pem -passout pass:throw-away -out encrypted-pkcs8.pem
openssl pkcs8 -topk8 -in ../good/ec-p256-sec1.pem -passout pass:throw-away -outform DER -out encrypted-pkcs8.der
openssl rsa -in ../good/rsa-pkcs8.pem -traditional -aes256 -passout pass:throw-away -out encrypted-traditional.pem 2>/dev/null
openssl pkcs12 -export -in ../good/leaf.pem -inkey ../good/ec-p256-sec1.pem -passout pass:throw-away -out pkcs12.p12
printf '\376\355\376\355\000\000\000\002\000\000\000\000' > keystore.jks
openssl rsa -in ../good/rsa-pkcs8.pem -noout -modulus > modulus.txt
printf '0x%s\n' "$(cut -d= -f2 modulus.txt)" > modulus-0x.txt
openssl ecparam -name prime256v1 -out ecparam.pem
printf -- '-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEZQ==\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n' > pgp.asc
printf 'PuTTY-User-Key-File-3: ssh-ed25519\n' > putty.ppk
cut -c1-200 ../good/ssh-rsa-2048.pub > truncated.pub
{ cat ../good/ssh-ed25519-256.pub; echo 'ssh-ed25519 AAAAnonsense'; echo 'hello world'; } > authorized_keys
sed 's/^ssh-ed25519/ssh-rsa/' ../good/ssh-ed25519-256.pub > other-type.pub
head -c 60 ../good/tpm2b-ecc256.bin > tpm2b-truncated.bin
{ cat ../good/tpm2b-ecc256.bin; printf x; } > tpm2b-trailing.bin
{ head -c 6 ../good/tpmt-ecc256.bin; } > tpmt-truncated.bin
printf 'Dear reader,\nthis is no key.\n' > letter.txt
