"""The checks of a key, by keyvet itself: the program is in the stack's layer."""

import json
import os
import subprocess

# What a key alone decides. Not expiry, chain and the like: AWS IoT sees to those.
CHECKS = "roca,debian,compromised,size,exponent,factors,point"
PASS, FAIL = 0, 1


def check(pem):
    """Returns whether the key of a certificate or request passes, fails, or neither (None), and why."""
    run = subprocess.run(
        [os.environ.get("KEYVET", "/opt/bin/keyvet"), "check", "-only", CHECKS, "-json", "-"],
        input=pem.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=50, check=False,
    )
    try:
        report = json.loads(run.stdout)
    except ValueError:
        return None, [run.stderr.decode(errors="replace")[:500]], ""
    why = ["%s: %s" % (f["reasonCode"], f.get("message", "")) for f in report.get("findings", []) if f["status"] != "WARN"]
    why += ["%s: %s" % (g["what"], g["why"]) for g in report.get("gaps", [])]
    subject = next((k["certificate"].get("subject", "") for k in report.get("keys", []) if k.get("certificate")), "")
    # An input without a key passes nothing.
    passed = run.returncode if run.returncode in (PASS, FAIL) and report.get("keys") else None
    return passed, why, subject
