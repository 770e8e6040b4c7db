// Package debian makes the keys of CVE-2008-0166 again: every key that the
// OpenSSL of Debian and its kin made from September 2006 to May 2008
// (0.9.8c-1 to 0.9.8g-8), whose random numbers hung on the process id alone.
// See https://www.debian.org/security/2008/dsa-1571 and
// https://wiki.debian.org/SSLkeys.
//
// A [Seed] names one run of the generator. For each type and size of key there
// are 32,768 process ids, three architectures and three variants of what was
// done before the first draw: 294,912 keys, and for ssh-keygen, a variant of
// its own, 98,304 more.
//
// Covered are RSA of any size as openssl genrsa, openssl req and ssh-keygen
// made it, and EC keys on P-224, P-256, P-384 and P-521. Not covered are DSA,
// programs that drew other random bytes first, and keys of a process id 0 to
// 32767 of another system than Linux.
package debian
